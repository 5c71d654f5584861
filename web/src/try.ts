// The viewer page: a study, its structures, and clicks.
import './try.css';
import { tab } from './annotator';
import * as api from './api';
import { Drawing, NO_STUDY, clickSets } from './drawing';
import { drop, keep, tell, tellFault } from './messages';
import { element } from './page_element';
import { Saving } from './saving';
import { StructureList } from './structure_list';
import type { Click, Structure } from './structures';
import { Turns } from './turns';
import { Viewer } from './viewer';

const CONTRASTS: Record<string, [number, number] | null> = {
  'as the image suggests': null,
  'abdomen (-160 to 240 HU)': [-160, 240],
  'liver (-15 to 145 HU)': [-15, 145],
  'lung (-1350 to 150 HU)': [-1350, 150],
  'bone (-450 to 1050 HU)': [-450, 1050],
};
const STEPS: Record<string, readonly [number, number, number]> = {
  ArrowUp: [0, 0, 1],
  ArrowDown: [0, 0, -1],
  ArrowLeft: [1, 0, 0], // right is on the left of the screen
  ArrowRight: [-1, 0, 0],
  PageUp: [0, 1, 0],
  PageDown: [0, -1, 0],
};
const GRAPHICS_STOPPED = 'The graphics card stopped. Save, then reload the page.';

let drawing = new Drawing(NO_STUDY, [], [0, 0, 0], undefined, null);
let loading: AbortController | null = null; // ends what is asked for of the study that is loaded now
const viewing = new Turns(); // the viewer opens one image at a time

const select = element<HTMLSelectElement>('study');
const viewer = new Viewer(
  element<HTMLCanvasElement>('canvas'),
  click => void clicked(click),
  () => keep('graphics', [GRAPHICS_STOPPED], [], true),
);
const structureList = new StructureList(element('structures'), choose);
const saving = new Saving({ shown: () => drawing, refresh: list, listStudies, open: id => void open(id) });

function paint(): void {
  viewer.paint(drawing.painted(), drawing.structures, drawing.current);
  list();
}

function list(): void {
  const { structures, current, unreadable } = drawing;
  structureList.show(structures, current);
  element<HTMLButtonElement>('undo').disabled = !current?.canUndo;
  element<HTMLButtonElement>('clear').disabled = !current || (current.isEmpty && !current.isWaiting);
  element<HTMLButtonElement>('doubt').disabled = !current?.doubt;
  element<HTMLButtonElement>('save').disabled = !drawing.canSave || saving.isRunning;
  element<HTMLButtonElement>('save').title = unreadable ? whyNotSaved(unreadable) : 'Ctrl+S';
}

function whyNotSaved(unreadable: string): string {
  return `There is a saved label that cannot be shown, so nothing can be saved over it here. ${unreadable}`;
}

function choose(structure: Structure): void {
  drawing.current = structure;
  paint();
  if (structure.isEmpty) tell(`Click in the ${structure.name}.`);
}

async function clicked(click: Click): Promise<void> {
  if (loading) return;
  const on = drawing;
  const structure = on.current;
  if (!structure) return tell('Choose a structure first.', 'fault');
  if (!structure.mayAsk(click)) return tell(`First click inside the ${structure.name}.`, 'fault');
  const asked = structure.ask(click);
  paint(); // its dot is there at once
  tell(`${structure.name} ...`, 'busy');
  try {
    const mask = await structure.answer(asked, (clicks, signal) => {
      const wanted = { label: structure.name, clicks: clickSets(clicks), imageEtag: on.imageEtag };
      return api.mask(on.study.id, wanted, tab, signal);
    });
    if (!mask || on !== drawing) return;
    on.changed();
    drop('sign-in');
    tellOrWait(`${describe(structure)}, ${Math.round(mask.seconds * 1000)} ms`);
  } catch (error) {
    if (on !== drawing) return;
    tellFault(error);
  }
  paint();
}

function describe({ name, clicks }: Structure): string {
  return `${name}: ${clicks.length} click${clicks.length === 1 ? '' : 's'}`;
}

/** Tell `text`, or what is still waited for. */
function tellOrWait(text: string): void {
  const waiting = drawing.structures.find(one => one.isWaiting);
  if (waiting) tell(`${waiting.name} ...`, 'busy');
  else tell(text);
}

function undo(): void {
  if (loading || !drawing.current?.canUndo) return;
  if (drawing.current.undo()) drawing.changed();
  tellOrWait(describe(drawing.current));
  paint();
}

function clear(): void {
  if (loading || !drawing.current) return;
  if (drawing.current.clear()) drawing.changed();
  tellOrWait(`Click in the ${drawing.current.name}.`);
  paint();
}

function showDoubt(): void {
  if (drawing.current?.doubt) viewer.turnTo(drawing.current.doubt);
}

function save(): void {
  if (loading) return;
  if (drawing.unreadable) tell(whyNotSaved(drawing.unreadable), 'fault');
  else void saving.save(drawing);
}

/** Nothing is shown, and nothing can be clicked or saved. */
function leave(): void {
  drawing.leave();
  drawing = new Drawing(NO_STUDY, [], viewer.shape, undefined, null);
  drop('conflict', 'unreadable');
  paint();
}

async function open(id: string): Promise<void> {
  const isKept = () => drawing.hasUnsaved && !confirm('What is drawn on this study is not saved. Leave it?');
  if (viewer.isLost || isKept()) {
    select.value = drawing.study.id;
    return;
  }
  loading?.abort();
  const own = new AbortController();
  const isWanted = () => loading === own; // no other study was chosen meanwhile
  loading = own;
  leave();
  tell('Loading ...', 'busy');
  try {
    const names = await api.structureNames(own.signal);
    const study = (await api.studies(own.signal)).find(one => one.id === id) ?? { id, name: id, isDone: false };
    const saved = study.isDone ? await savedOrReason(id, own.signal) : null;
    const [image, geometry] = await Promise.all([api.image(id, own.signal), api.geometry(id, own.signal)]);
    if (!isWanted()) return;
    await viewing.add(async () => isWanted() && viewer.open(image.content, image.name, geometry));
    if (!isWanted()) return;
    drawing = new Drawing(study, names, viewer.shape, image.etag, saved);
    loading = null;
    suggestContrast();
    paint();
    introduce(saved !== null);
  } catch (error) {
    if (!isWanted()) return;
    await viewing.add(async () => viewer.close());
    if (!isWanted()) return;
    loading = null;
    leave();
    select.selectedIndex = -1; // any of them can be chosen again
    tellFault(error);
  }
}

/** The saved label, or that it cannot be shown; where it could not be fetched, nothing is known of it. */
async function savedOrReason(id: string, signal: AbortSignal): Promise<api.SavedLabel | api.UnreadableLabel | null> {
  try {
    return await api.savedLabel(id, signal);
  } catch (error) {
    if (error instanceof api.UnreadableLabel) return error;
    throw error;
  }
}

function introduce(isSaved: boolean): void {
  const { unreadable, current } = drawing;
  if (unreadable) keep('unreadable', [whyNotSaved(unreadable)], [], true);
  if (isSaved && !unreadable) tell('The saved label is shown. Clicks in a structure take the place of what was saved of it.');
  else tell(current ? `Click in the ${current.name}.` : 'Add a structure, then click in it.');
}

function suggestContrast(): void {
  const contrast = element<HTMLSelectElement>('window');
  contrast.value = viewer.isCt ? 'abdomen (-160 to 240 HU)' : 'as the image suggests';
  contrast.onchange?.(new Event('change'));
}

async function listStudies(): Promise<api.Study[]> {
  const all = await api.studies();
  const wished = loading ? select.value : drawing.study.id;
  select.replaceChildren(...all.map(one => new Option(`${one.isDone ? '✓ ' : ''}${one.name}`, one.id)));
  select.value = wished;
  return all;
}

function add(): void {
  const name = element<HTMLInputElement>('name').value.trim();
  if (!name || !drawing.study.id) return;
  const structure = drawing.structure(name);
  if (!structure) return tell('There are too many structures for one label.', 'fault');
  element<HTMLInputElement>('name').value = '';
  choose(structure);
}

function pressed(event: KeyboardEvent): void {
  const isTyping = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
  const isText = event.target === element('name'); // has an undo of its own
  const isListed = event.target instanceof Node && element('structures').contains(event.target);
  const isOfList = isListed && ['ArrowUp', 'ArrowDown'].includes(event.key); // which choose a structure there
  const isCommand = event.ctrlKey || event.metaKey;
  const key = event.key.toLowerCase(); // Caps Lock makes capitals
  if (event.shiftKey || event.altKey) return; // with Ctrl and Z, shift is redo elsewhere; Alt and an arrow leave the page
  if (isCommand && key === 'z' && !isText) undo();
  else if (isCommand && key === 's') save();
  else if (isCommand || isTyping) return;
  else if (key === 'n') showDoubt();
  else if (STEPS[event.key] && !isOfList) viewer.step(STEPS[event.key]);
  else return;
  event.preventDefault();
}

async function start(): Promise<void> {
  const contrast = element<HTMLSelectElement>('window');
  contrast.append(...Object.keys(CONTRASTS).map(name => new Option(name)));
  contrast.onchange = event => {
    if (viewer.isOpen) viewer.contrast = CONTRASTS[contrast.value] ?? viewer.ownContrast;
    event.preventDefault();
  };
  select.onchange = () => void open(select.value);
  const opacity = element<HTMLInputElement>('opacity');
  opacity.oninput = () => (viewer.opacity = Number(opacity.value));
  element('undo').onclick = undo;
  element('clear').onclick = clear;
  element('doubt').onclick = showDoubt;
  element('save').onclick = save;
  element<HTMLFormElement>('add').onsubmit = event => {
    event.preventDefault();
    add();
  };
  addEventListener('keydown', pressed, true); // before the canvas, which keeps keys from NiiVue
  const isAnythingUnsaved = () => drawing.hasUnsaved || saving.isRunning;
  addEventListener('beforeunload', event => isAnythingUnsaved() && event.preventDefault());
  api.stayWhile(isAnythingUnsaved);
  try {
    await viewer.start();
    viewer.opacity = Number(opacity.value);
    const all = await listStudies();
    if (!all.length) return tell('There are no studies here yet.', 'fault');
    const wished = new URLSearchParams(location.search).get('study');
    const id = all.find(one => one.id === wished)?.id ?? all[0].id;
    select.value = id;
    await open(id);
  } catch (error) {
    tell((error as Error).message, 'fault');
  }
}

// For tests, and for whoever looks into it: where a voxel is on the page, and what is painted.
Object.assign(globalThis, {
  deepgrow3d: { viewer, painted: () => drawing.painted(), structures: () => drawing.structures },
});

void start();
