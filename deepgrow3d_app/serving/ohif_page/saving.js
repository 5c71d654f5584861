// Saving, and opening what was saved: the MONAI Label panel of this OHIF has neither button.
// Voxels are those of the panel's own segmentation; the server's answers are shown as it gives them.
(() => {
  const SEGMENTATION = '1'; // how the panel calls its segmentation
  const NIFTI_VOXELS = 352; // byte of the first voxel in what the server sends

  function server() {
    const shown = document.getElementById('monailabelServerURL');
    return new URL(shown ? shown.value : '/', location.href);
  }

  function seriesUid() {
    const { viewportGridService, displaySetService } = window.services;
    const { viewports, activeViewportId } = viewportGridService.getState();
    return displaySetService.getDisplaySetByUID(viewports.get(activeViewportId).displaySetInstanceUIDs[0])
      .SeriesInstanceUID;
  }

  // The panel's structures, by index: {segmentIndex, label, ...}
  function segments() {
    const { segmentationService } = window.services;
    return segmentationService.getSegmentations().find(one => one.segmentationId === SEGMENTATION).config.segments;
  }

  // The index of the structure called `name`, which the panel may not have had before
  function indexOf(name) {
    const known = Object.values(segments()).find(segment => segment.label === name);
    if (known) return known.segmentIndex;
    const free = Array.from({ length: 255 }, (_, place) => place + 1).find(index => !segments()[index]);
    if (!free) throw new Error(`There is no room for '${name}' beside 255 structures.`);
    segments()[free] = { segmentIndex: free, label: name, active: false, locked: false };
    return free;
  }

  function voxels() {
    return window.services.segmentationService.getLabelmapVolume(SEGMENTATION).voxelManager;
  }

  // Who saves, as far as anybody can tell: this browser
  function annotator() {
    const key = 'deepgrow3d-annotator';
    const known = localStorage.getItem(key) || `OHIF-${crypto.getRandomValues(new Uint32Array(1))[0].toString(16)}`;
    localStorage.setItem(key, known);
    return known;
  }

  async function checked(response) {
    if (response.ok) return response;
    const text = await response.text();
    let reason = `status ${response.status}`;
    try {
      reason = JSON.parse(text).detail || reason;
    } catch {
      // not from this server
    }
    throw new Error(reason);
  }

  async function save() {
    const labels = Uint8Array.from(voxels().getCompleteScalarDataArray());
    const used = [...new Set(labels)].filter(value => value > 0).sort((a, b) => a - b);
    if (!used.length) throw new Error('There is nothing to save yet: choose an organ, click, and press Run.');
    const info = used.map(value => ({ name: segments()[value]?.label || `label ${value}`, idx: value }));
    const form = new FormData();
    form.append('params', JSON.stringify({ label_info: info, model: 'deepgrow3d', client_id: annotator() }));
    form.append('label', new Blob([labels]), 'label.bin');
    const url = new URL('datastore/label', server());
    url.searchParams.set('image', seriesUid());
    const saved = await (await checked(await fetch(url, { method: 'PUT', body: form }))).json();
    return `Saved: ${info.map(one => one.name).join(', ')}.${saved.notice ? ` ${saved.notice}` : ''}`;
  }

  async function open() {
    const query = new URLSearchParams({ label: seriesUid(), tag: 'final' });
    const info = await (await checked(await fetch(new URL(`datastore/label/info?${query}`, server())))).json();
    const packed = await checked(await fetch(new URL(`datastore/label?${query}`, server())));
    const unpacked = packed.body.pipeThrough(new DecompressionStream('gzip'));
    const labels = new Uint8Array(await new Response(unpacked).arrayBuffer(), NIFTI_VOXELS);
    const shown = new Uint8Array(256);
    for (const { name, idx } of info.label_info || []) shown[idx] = indexOf(name);
    voxels().setCompleteScalarDataArray(labels.map(value => shown[value]));
    const { eventTarget, triggerEvent } = window.cornerstone;
    triggerEvent(eventTarget, window.cornerstoneTools.Enums.Events.SEGMENTATION_DATA_MODIFIED, {
      segmentationId: SEGMENTATION,
    });
    return `Opened: ${(info.label_info || []).map(one => one.name).join(', ')}.`;
  }

  function button(text, action, told) {
    const made = document.createElement('button');
    made.className = 'actionButton';
    made.style.cssText = 'margin-right: 6px; padding: 2px 10px; font-size: 13px; border-radius: 12px';
    made.textContent = text;
    made.onclick = async () => {
      made.disabled = true;
      told.style.color = 'white';
      told.textContent = `${text} ...`;
      try {
        told.textContent = await action();
      } catch (error) {
        told.style.color = 'orange';
        told.textContent = `${text} failed. ${error.message}`;
      }
      made.disabled = false;
    };
    return made;
  }

  // The panel is made anew whenever a study is opened, and has its tabs once it is connected.
  function addButtons() {
    const tabs = document.querySelector('.monaiLabelPanel .tabs');
    if (!tabs || document.getElementById('deepgrow3d-saving')) return;
    const row = document.createElement('div');
    row.id = 'deepgrow3d-saving';
    row.style.margin = '8px 0';
    const told = document.createElement('p');
    told.id = 'deepgrow3d-told';
    told.setAttribute('role', 'status');
    told.style.fontSize = 'smaller';
    row.append(button('Save label', save, told), button('Open saved label', open, told), told);
    tabs.before(row);
  }

  new MutationObserver(addButtons).observe(document, { childList: true, subtree: true });
})();
