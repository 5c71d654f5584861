// Saving, and opening what was saved: the MONAI Label panel of this OHIF has neither button.
// Voxels are those of the panel's own segmentation; the server's answers are shown as it gives them.
(() => {
  const SEGMENTATION = '1'; // how the panel calls its segmentation
  const NIFTI_DATATYPE = 70;
  const NIFTI_VOXELS_AT = 108;
  const UINT8 = 2;
  const ROUNDS = 4; // of asking for a label that is replaced meanwhile
  const CONFLICT = 409;

  // The drawing that was looked at last: its series, the version of the saved label that it goes back to (undefined
  // where nobody asked yet), a digest of what was last saved or opened, and whether a save was refused as outdated
  let known = null;
  let listens = false;

  function server() {
    const shown = document.getElementById('monailabelServerURL');
    return new URL(shown ? shown.value : '/', location.href);
  }

  function labelmap() {
    return window.services.segmentationService.getLabelmapVolume(SEGMENTATION);
  }

  // The series is asked of the labelmap itself: a viewport may show another one meanwhile, whose label it would become.
  // Another labelmap, made when a study is opened, has other images, and is another drawing.
  function drawing() {
    const first = labelmap()?.imageIds?.[0];
    const source = first && window.cornerstone.cache.getImage(first)?.referencedImageId;
    const series = source && window.cornerstone.metaData.get('generalSeriesModule', source)?.seriesInstanceUID;
    if (!series) return null;
    const id = `${server()} ${first}`;
    if (known?.id !== id) {
      known = { id, series, version: undefined, kept: undefined, isRefused: false, isLookedUp: false };
    }
    return known;
  }

  // The drawing, where its series is what the annotator looks at; `what` is to be done then
  function drawingInView(what) {
    const { viewportGridService, displaySetService } = window.services;
    const drawn = drawing();
    if (!drawn) throw new Error('There is no series to draw on yet. Open one, and connect the panel.');
    const { viewports, activeViewportId } = viewportGridService.getState();
    const shown = viewports.get(activeViewportId)?.displaySetInstanceUIDs || [];
    if (shown.some(uid => displaySetService.getDisplaySetByUID(uid)?.SeriesInstanceUID === drawn.series)) return drawn;
    const [owner] = displaySetService.getDisplaySetsForSeries(drawn.series);
    const name = owner?.SeriesDescription || drawn.series;
    throw new Error(`The drawing belongs to another series: ${name}. Show that one again, then ${what}.`);
  }

  // After an answer was waited for
  function checkIsStillInView(drawn, what) {
    if (drawingInView(what) !== drawn) throw new Error(`Another drawing was begun meanwhile: see it, then ${what}.`);
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
    return labelmap().voxelManager.getCompleteScalarDataArray();
  }

  // FNV-1a: tells whether anything was drawn since, and needs no copy of what may be 100 MB
  function digest(values) {
    let hash = 0x811c9dc5;
    for (let place = 0; place < values.length; place++) hash = Math.imul(hash ^ values[place], 0x01000193);
    return hash;
  }

  // Who saves, as far as anybody can tell: this browser
  function annotator() {
    const key = 'deepgrow3d-annotator';
    const known = localStorage.getItem(key) || `OHIF-${crypto.getRandomValues(new Uint32Array(1))[0].toString(16)}`;
    localStorage.setItem(key, known);
    return known;
  }

  async function asked(path, query, options = {}) {
    const url = new URL(path, server());
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    const response = await fetch(url, { cache: 'no-store', ...options });
    if (response.ok) return response;
    const text = await response.text();
    let reason = `status ${response.status}`;
    try {
      reason = JSON.parse(text).detail || reason;
    } catch {
      // not from this server
    }
    throw Object.assign(new Error(reason), { status: response.status });
  }

  async function infoOf(series) {
    return (await asked('datastore/label/info', { label: series, tag: 'final' })).json();
  }

  // {version, label_info} of the final label, version 0 where there is none
  async function newest(series) {
    try {
      return { version: 0, ...(await infoOf(series)) };
    } catch (error) {
      // A segmentation that the server cannot read as a label of this series has no version there either.
      if (error.status >= 400 && error.status < 500) return { version: 0 };
      throw error;
    }
  }

  // Names and voxels come from two requests: they belong together where the version was the same before and after.
  async function savedLabel(series) {
    let info = await infoOf(series);
    for (let round = 0; round < ROUNDS; round++) {
      const packed = await asked('datastore/label', { label: series, tag: 'final', output: 'uint8' });
      const file = await new Response(packed.body.pipeThrough(new DecompressionStream('gzip'))).arrayBuffer();
      const before = info;
      info = await infoOf(series);
      if (info.version !== before.version) continue;
      const header = new DataView(file);
      if (header.getInt16(NIFTI_DATATYPE, true) !== UINT8) throw new Error('The saved label does not hold bytes.');
      return { info, labels: new Uint8Array(file, header.getFloat32(NIFTI_VOXELS_AT, true)) };
    }
    throw new Error('Others save this label again and again. Try it once they are done.');
  }

  function namesOf(info) {
    return (info.label_info || []).map(one => one.name).join(', ');
  }

  async function save() {
    const drawn = drawingInView('save');
    if (!voxels().some(value => value > 0)) {
      throw new Error('There is nothing to save yet: choose an organ, click, and press Run.');
    }
    if (drawn.isRefused) {
      const { version } = await newest(drawn.series);
      const question = `Version ${version} of the label was not opened here. Replace it by what is drawn?`;
      if (version && !confirm(question)) return 'Nothing was saved. What is drawn is still here.';
      drawn.version = version;
    }
    drawn.version ??= (await newest(drawn.series)).version;
    checkIsStillInView(drawn, 'save');
    const labels = Uint8Array.from(voxels());
    const used = [...new Set(labels)].filter(value => value > 0).sort((a, b) => a - b);
    const info = used.map(value => ({ name: segments()[value]?.label || `label ${value}`, idx: value }));
    const form = new FormData();
    const params = { label_info: info, model: 'deepgrow3d', client_id: annotator(), based_on: drawn.version };
    form.append('params', JSON.stringify(params));
    form.append('label', new Blob([labels]), 'label.bin');
    try {
      const answer = await asked('datastore/label', { image: drawn.series }, { method: 'PUT', body: form });
      const saved = await answer.json();
      Object.assign(drawn, { version: saved.version, kept: digest(labels), isRefused: false });
      return `Saved: ${info.map(one => one.name).join(', ')}.${saved.notice ? ` ${saved.notice}` : ''}`;
    } catch (error) {
      if (error.status !== CONFLICT) throw error;
      drawn.isRefused = true;
      const { version, saved_by: by } = await newest(drawn.series);
      const reason = version
        ? `${by || 'Somebody'} saved version ${version} of this label since the drawing was begun.`
        : 'Somebody removed this label since the drawing was begun.';
      throw new Error(`${reason} What is drawn is still here: press Save label again to save over that.`);
    }
  }

  async function open() {
    const drawn = drawingInView('open the label');
    const { info, labels } = await savedLabel(drawn.series);
    checkIsStillInView(drawn, 'open the label');
    const before = voxels();
    if (labels.length !== before.length) throw new Error('The saved label has other slices than the series here.');
    const isUnsaved = before.some(value => value > 0) && digest(before) !== drawn.kept;
    if (isUnsaved && !confirm('What is drawn is not saved. Replace it?')) return 'Nothing was opened.';
    const shown = new Uint8Array(256);
    for (const { name, idx } of info.label_info || []) shown[idx] = indexOf(name);
    for (const value of new Set(labels)) if (value && !shown[value]) shown[value] = indexOf(`label ${value}`);
    const opened = labels.map(value => shown[value]);
    labelmap().voxelManager.setCompleteScalarDataArray(opened);
    Object.assign(drawn, { version: info.version ?? 0, kept: digest(opened), isRefused: false });
    const { eventTarget, triggerEvent } = window.cornerstone;
    triggerEvent(eventTarget, window.cornerstoneTools.Enums.Events.SEGMENTATION_DATA_MODIFIED, {
      segmentationId: SEGMENTATION,
    });
    return `Opened: ${namesOf(info)}.`;
  }

  // Once for each drawing, when it begins: what somebody saves later was not seen here. Tells what is there already.
  async function lookUp() {
    const drawn = drawing();
    if (!drawn || drawn.isLookedUp) return;
    drawn.isLookedUp = true;
    try {
      const info = await newest(drawn.series);
      drawn.version ??= info.version;
      const told = document.getElementById('deepgrow3d-told');
      if (info.version && told && !told.textContent && drawing() === drawn) {
        told.textContent = `There is a saved label, version ${info.version}: ${namesOf(info)}. Saving replaces it.`;
      }
    } catch {
      // saving asks again, and tells
    }
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
    if (!listens) {
      listens = true; // a labelmap may come after the tabs, or be made anew for another series
      const changed = window.cornerstoneTools.Enums.Events.SEGMENTATION_DATA_MODIFIED;
      window.cornerstone.eventTarget.addEventListener(changed, lookUp);
    }
    lookUp();
  }

  new MutationObserver(addButtons).observe(document, { childList: true, subtree: true });
})();
