// The viewer page: a study, its structures, clicks, and saving.
import './try.css';
import { annotator, tab } from './annotator';
import * as api from './api';
import { fill } from './structure_list';
import { type Click, MAX_VALUE, Structure, labelMap } from './structures';
import { Viewer } from './viewer';

const element = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const told = element<HTMLParagraphElement>('told');

const CONTRASTS: Record<string, [number, number] | null> = {
  'as the image suggests': null,
  'abdomen (-160 to 240 HU)': [-160, 240],
  'liver (-15 to 145 HU)': [-15, 145],
  'lung (-1350 to 150 HU)': [-1350, 150],
  'bone (-450 to 1050 HU)': [-450, 1050],
};

let study = ''; // the one that is shown and drawn on; '' while none is
let structures: Structure[] = [];
let current: Structure | null = null;
let isUnreadable = false; // there is a saved label that cannot be shown: to save would replace it unseen
let wasSaved = false; // there is a saved label
let changes = 0;
let savedChanges = 0; // how many of them the server has
let isSaving = false;
let isLoading = false;
let loads = 0; // numbers the studies that were asked for; only the last one is of interest
let viewing: Promise<unknown> = Promise.resolve(); // the viewer opens one image at a time

const viewer = new Viewer(element<HTMLCanvasElement>('canvas'), click => void clicked(click));

function tell(text: string, kind: 'plain' | 'busy' | 'fault' = 'plain'): void {
  told.textContent = text;
  told.className = kind;
}

function painted(): Uint8Array {
  return labelMap(structures, viewer.shape);
}

function paint(): void {
  viewer.paint(painted(), structures, current);
  list();
}

function hasUnsaved(): boolean {
  return changes !== savedChanges || structures.some(one => one.isWaiting);
}

/** Whether there is anything to save that was not saved, and it may be. */
function canSave(): boolean {
  const isNothing = !wasSaved && structures.every(one => one.isEmpty);
  return changes !== savedChanges && !isNothing && !isUnreadable && !isSaving && !isLoading;
}

function list(): void {
  fill(element('structures'), structures, current, choose);
  element<HTMLButtonElement>('undo').disabled = !current?.canUndo;
  element<HTMLButtonElement>('clear').disabled = !current || (current.isEmpty && !current.isWaiting);
  element<HTMLButtonElement>('doubt').disabled = !current?.doubt;
  element<HTMLButtonElement>('save').disabled = !canSave();
  element<HTMLButtonElement>('save').title = isUnreadable ? 'There is a saved label that cannot be shown.' : 'Ctrl+S';
}

function choose(structure: Structure): void {
  current = structure;
  paint();
  if (structure.isEmpty) tell(`Click in the ${structure.name}.`);
}

function clickSets(clicks: Click[]): api.ClickSets {
  const side = (isPositive: boolean) => clicks.filter(one => one.isPositive === isPositive).map(one => one.index);
  return { foreground: side(true), background: side(false) };
}

async function clicked(click: Click): Promise<void> {
  if (isLoading) return;
  if (!current) return tell('Choose a structure first.', 'fault');
  const structure = current;
  const clicks = structure.with(click);
  if (!clicks.some(one => one.isPositive)) return tell(`First click inside the ${structure.name}.`, 'fault');
  const asked = structure.ask(clicks);
  list();
  tell(`${structure.name} ...`, 'busy');
  try {
    const mask = await api.mask(study, structure.name, tab, clickSets(clicks));
    if (!structures.includes(structure) || !structure.answered(asked, mask)) return;
    changes++;
    tellOrWait(`${describe(structure)}, ${Math.round(mask.seconds * 1000)} ms`);
  } catch (error) {
    if (!structures.includes(structure) || !structure.failed(asked)) return;
    tell((error as Error).message, 'fault');
  }
  paint();
}

function describe({ name, clicks }: Structure): string {
  return `${name}: ${clicks.length} click${clicks.length === 1 ? '' : 's'}`;
}

/** Tell `text`, or what is still waited for. */
function tellOrWait(text: string): void {
  const waiting = structures.find(one => one.isWaiting);
  if (waiting) tell(`${waiting.name} ...`, 'busy');
  else tell(text);
}

function undo(): void {
  if (isLoading || !current?.canUndo) return;
  if (current.undo()) changes++;
  tellOrWait(describe(current));
  paint();
}

function clear(): void {
  if (isLoading || !current) return;
  if (current.clear()) changes++;
  tellOrWait(`Click in the ${current.name}.`);
  paint();
}

function showDoubt(): void {
  if (current?.doubt) viewer.turnTo(current.doubt);
}

async function save(): Promise<void> {
  if (!canSave()) return;
  const [load, of, saving] = [loads, study, changes];
  const used = structures.filter(one => !one.isEmpty);
  const names = used.map(one => ({ name: one.name, idx: one.value }));
  const clicks = Object.fromEntries(used.filter(one => one.mask).map(one => [one.name, clickSets(one.clicks)]));
  isSaving = true;
  tell('Saving ...', 'busy');
  list();
  try {
    const notice = await api.save(of, painted(), names, clicks, annotator);
    if (load === loads) {
      savedChanges = saving; // what was clicked meanwhile is not saved
      wasSaved = true;
      tell(`Saved: ${names.map(one => one.name).join(', ') || 'nothing is labelled'}.${notice && ` ${notice}`}`);
    }
    await listStudies().catch(() => undefined); // saved it is in any case
  } catch (error) {
    const left = load === loads ? '' : `What was drawn on ${of} is not saved. `;
    tell(left + (error as Error).message, 'fault');
  } finally {
    isSaving = false;
    list();
  }
}

/** Nothing is shown, and nothing can be clicked or saved. */
function leave(): void {
  study = '';
  structures = [];
  current = null;
  isUnreadable = false;
  wasSaved = false;
  changes = savedChanges = 0;
  paint();
}

async function open(id: string): Promise<void> {
  if (hasUnsaved() && !confirm('What is drawn on this study is not saved. Leave it?')) {
    element<HTMLSelectElement>('study').value = study;
    return;
  }
  const load = ++loads;
  isLoading = true;
  leave();
  tell('Loading ...', 'busy');
  try {
    const names = await api.structureNames();
    const isDone = (await api.studies()).some(one => one.id === id && one.isDone);
    const saved = isDone ? await savedOrReason(id) : null;
    const image = await api.image(id);
    if (load !== loads) return; // another study was chosen meanwhile
    await alone(() => viewer.open(image.content, image.name));
    if (load !== loads) return;
    isLoading = false;
    study = id;
    structures = names.map((name, place) => new Structure(name, place + 1));
    current = structures[0] ?? null;
    wasSaved = isDone;
    suggestContrast();
    show(saved);
  } catch (error) {
    if (load !== loads) return;
    await alone(async () => viewer.close());
    if (load !== loads) return;
    isLoading = false;
    leave();
    element<HTMLSelectElement>('study').selectedIndex = -1; // any of them can be chosen again
    tell((error as Error).message, 'fault');
  }
}

/** Wait until the viewer is free, and use it. */
function alone<T>(use: () => Promise<T>): Promise<T> {
  const used = viewing.then(use);
  viewing = used.catch(() => undefined);
  return used;
}

/** The saved label, or why it cannot be shown. */
async function savedOrReason(id: string): Promise<api.SavedLabel | string> {
  try {
    return await api.savedLabel(id);
  } catch (error) {
    return (error as Error).message;
  }
}

function show(saved: api.SavedLabel | string | null): void {
  const reason = typeof saved === 'string' ? saved : saved && whyNotAdded(saved);
  isUnreadable = Boolean(reason);
  paint();
  if (reason) tell(`There is a saved label that cannot be shown, so nothing can be saved over it here. ${reason}`, 'fault');
  else if (saved) tell('The saved label is shown. Clicks in a structure take the place of what was saved of it.');
  else tell(current ? `Click in the ${current.name}.` : 'Add a structure, then click in it.');
}

/** Give every structure its part of the label; returns why that is not possible, or ''. */
function whyNotAdded({ values, names }: api.SavedLabel): string {
  const [ni, nj, nk] = viewer.shape;
  if (values.length !== ni * nj * nk) return 'It does not lie on the image.';
  const used = new Set(values);
  used.delete(0);
  for (const value of used) {
    const name = names.find(one => one.idx === value)?.name ?? `label ${value}`;
    const structure = structures.find(one => one.name === name) ?? added(name);
    if (!structure) return 'It has too many structures.';
    structure.addSaved(values, value);
  }
  return '';
}

/** A structure of one's own; null where there are too many. */
function added(name: string): Structure | null {
  const value = Math.max(0, ...structures.map(one => one.value)) + 1;
  if (value > MAX_VALUE) return null;
  const structure = new Structure(name, value);
  structures.push(structure);
  return structure;
}

function suggestContrast(): void {
  const select = element<HTMLSelectElement>('window');
  select.value = viewer.isCt ? 'abdomen (-160 to 240 HU)' : 'as the image suggests';
  select.onchange?.(new Event('change'));
}

async function listStudies(): Promise<api.Study[]> {
  const all = await api.studies();
  const select = element<HTMLSelectElement>('study');
  const wished = isLoading ? select.value : study;
  select.replaceChildren(...all.map(one => new Option(`${one.isDone ? '✓ ' : ''}${one.name}`, one.id)));
  select.value = wished;
  return all;
}

async function start(): Promise<void> {
  element<HTMLSelectElement>('window').append(...Object.keys(CONTRASTS).map(name => new Option(name)));
  element<HTMLSelectElement>('window').onchange = event => {
    const chosen = element<HTMLSelectElement>('window').value;
    if (viewer.isOpen) viewer.contrast = CONTRASTS[chosen] ?? viewer.ownContrast;
    event.preventDefault();
  };
  element<HTMLSelectElement>('study').onchange = () => void open(element<HTMLSelectElement>('study').value);
  const opacity = element<HTMLInputElement>('opacity');
  opacity.oninput = () => (viewer.opacity = Number(opacity.value));
  element('undo').onclick = undo;
  element('clear').onclick = clear;
  element('doubt').onclick = showDoubt;
  element('save').onclick = () => void save();
  element<HTMLFormElement>('add').onsubmit = event => {
    event.preventDefault();
    const name = element<HTMLInputElement>('name').value.trim();
    if (!name || !study) return;
    const structure = structures.find(one => one.name === name) ?? added(name);
    if (!structure) return tell('There are too many structures for one label.', 'fault');
    element<HTMLInputElement>('name').value = '';
    choose(structure);
  };
  addEventListener('keydown', event => {
    const isTyping = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
    const isText = event.target === element('name'); // has an undo of its own
    if (event.key === 'n' && !event.ctrlKey && !event.metaKey && !isTyping) return showDoubt();
    if (!event.ctrlKey && !event.metaKey) return;
    if (event.key === 'z' && !isText) undo();
    else if (event.key === 's') void save();
    else return;
    event.preventDefault();
  }, true); // before the canvas, which keeps keys from NiiVue
  addEventListener('beforeunload', event => (hasUnsaved() || isSaving) && event.preventDefault());
  try {
    await viewer.start();
    viewer.opacity = Number(opacity.value);
    const all = await listStudies();
    if (!all.length) return tell('There are no studies here yet.', 'fault');
    const wished = new URLSearchParams(location.search).get('study');
    const id = all.find(one => one.id === wished)?.id ?? all[0].id;
    element<HTMLSelectElement>('study').value = id;
    await open(id);
  } catch (error) {
    tell((error as Error).message, 'fault');
  }
}

// For tests, and for whoever looks into it: where a voxel is on the page, and what is painted.
Object.assign(globalThis, { deepgrow3d: { viewer, painted, structures: () => structures } });

void start();
