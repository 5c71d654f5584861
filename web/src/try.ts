// The viewer page: a study, its structures, clicks, and saving.
import './try.css';
import * as api from './api';
import { type Click, Structure, labelMap } from './structures';
import { Viewer } from './viewer';

const element = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const told = element<HTMLParagraphElement>('told');
const client = crypto.randomUUID?.() ?? String(Math.random()).slice(2); // no randomUUID on plain http of another machine

const CONTRASTS: Record<string, [number, number] | null> = {
  'as the image suggests': null,
  'abdomen (-160 to 240 HU)': [-160, 240],
  'liver (-15 to 145 HU)': [-15, 145],
  'lung (-1350 to 150 HU)': [-1350, 150],
  'bone (-450 to 1050 HU)': [-450, 1050],
};

let study = '';
let structures: Structure[] = [];
let current: Structure | null = null;
let isSaved = true;
let opened = Promise.resolve(); // one image is loaded at a time
let running = 0; // numbers what was asked for; only the last one is of interest

const viewer = new Viewer(element<HTMLCanvasElement>('canvas'), click => void clicked(click));

function tell(text: string, kind: 'plain' | 'busy' | 'fault' = 'plain'): void {
  told.textContent = text;
  told.className = kind;
}

function painted(): Uint8Array {
  return labelMap(structures, viewer.shape);
}

function paint(): void {
  viewer.paint(painted(), structures, current, Number(element<HTMLInputElement>('opacity').value));
  list();
}

function list(): void {
  element('structures').replaceChildren(
    ...structures.map(structure => {
      const item = document.createElement('li');
      item.setAttribute('role', 'option');
      item.setAttribute('aria-selected', String(structure === current));
      item.tabIndex = 0;
      const colour = document.createElement('span');
      colour.style.background = structure.isEmpty ? 'transparent' : `rgb(${structure.colour})`;
      colour.style.borderColor = `rgb(${structure.colour})`;
      const count = document.createElement('small');
      count.textContent = structure.clicks.length ? String(structure.clicks.length) : '';
      item.append(colour, structure.name, count);
      item.onclick = () => choose(structure);
      item.onkeydown = event => event.key === 'Enter' && choose(structure);
      return item;
    }),
  );
  element<HTMLButtonElement>('undo').disabled = !current?.canUndo;
  element<HTMLButtonElement>('clear').disabled = !current || current.isEmpty;
  element<HTMLButtonElement>('doubt').disabled = !current?.doubt;
  element<HTMLButtonElement>('save').disabled = isSaved;
}

function choose(structure: Structure): void {
  current = structure;
  paint();
  if (structure.isEmpty) tell(`Click in the ${structure.name}.`);
}

async function clicked(click: Click): Promise<void> {
  if (!current) return tell('Choose a structure first.', 'fault');
  const structure = current;
  const isSame = (other: Click) => other.index.every((place, axis) => place === click.index[axis]);
  const clicks = [...structure.clicks.filter(other => !isSame(other)), click];
  if (!clicks.some(one => one.isPositive)) return tell(`First click inside the ${structure.name}.`, 'fault');
  const run = ++running;
  tell(`${structure.name} ...`, 'busy');
  try {
    const side = (isPositive: boolean) => clicks.filter(one => one.isPositive === isPositive).map(one => one.index);
    const mask = await api.mask(study, structure.name, client, side(true), side(false));
    if (run !== running) return; // clicked again meanwhile
    structure.clicked(clicks, mask);
    isSaved = false;
    tell(`${structure.name}: ${clicks.length} click${clicks.length > 1 ? 's' : ''}, ${Math.round(mask.seconds * 1000)} ms`);
  } catch (error) {
    if (run === running) tell((error as Error).message, 'fault');
  }
  paint();
}

function undo(): void {
  running++;
  current?.undo();
  isSaved = false;
  tell(current ? `${current.name}: ${current.clicks.length} click${current.clicks.length === 1 ? '' : 's'}` : '');
  paint();
}

function clear(): void {
  running++;
  current?.clear();
  isSaved = false;
  tell(current ? `Click in the ${current.name}.` : '');
  paint();
}

function showDoubt(): void {
  if (current?.doubt) viewer.turnTo(current.doubt);
}

async function save(): Promise<void> {
  const names = structures.filter(one => !one.isEmpty).map(one => ({ name: one.name, idx: one.value }));
  tell('Saving ...', 'busy');
  try {
    const notice = await api.save(study, painted(), names, client);
    isSaved = true;
    tell(`Saved: ${names.map(one => one.name).join(', ')}.${notice && ` ${notice}`}`);
    await listStudies();
  } catch (error) {
    tell((error as Error).message, 'fault');
  }
  list();
}

async function open(id: string): Promise<void> {
  if (!isSaved && !confirm('What is drawn on this study is not saved. Leave it?')) {
    element<HTMLSelectElement>('study').value = study;
    return;
  }
  const turn = ++running;
  tell('Loading ...', 'busy');
  study = id;
  isSaved = true;
  try {
    const names = await api.structureNames();
    const known = (await api.studies()).find(one => one.id === id);
    const saved = known?.isDone ? await api.savedLabel(id) : null;
    const file = await api.imageName(id);
    if (turn !== running) return; // another study was chosen meanwhile
    await (opened = opened.then(() => viewer.open(api.imageUrl(id), file)));
    if (turn !== running) return;
    structures = names.map((name, place) => new Structure(name, place + 1));
    current = structures[0];
    suggestContrast();
    if (saved) show(saved);
    paint();
    tell(known?.isDone ? 'The saved label is shown. Clicks in a structure take the place of what was saved of it.' : `Click in the ${current.name}.`);
  } catch (error) {
    opened = Promise.resolve();
    tell((error as Error).message, 'fault');
  }
}

function show({ values, names }: api.SavedLabel): void {
  const used = new Set(values);
  used.delete(0);
  for (const value of used) {
    const name = names.find(one => one.idx === value)?.name ?? `label ${value}`;
    const structure = structures.find(one => one.name === name) ?? added(name);
    structure.saved = values.map(one => Number(one === value));
  }
}

function added(name: string): Structure {
  const structure = new Structure(name, Math.max(0, ...structures.map(one => one.value)) + 1);
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
  select.replaceChildren(...all.map(one => new Option(`${one.isDone ? '✓ ' : ''}${one.name}`, one.id)));
  select.value = study;
  return all;
}

async function start(): Promise<void> {
  element<HTMLSelectElement>('window').append(...Object.keys(CONTRASTS).map(name => new Option(name)));
  element<HTMLSelectElement>('window').onchange = event => {
    const chosen = element<HTMLSelectElement>('window').value;
    viewer.contrast = CONTRASTS[chosen] ?? viewer.ownContrast;
    event.preventDefault();
  };
  element<HTMLSelectElement>('study').onchange = () => void open(element<HTMLSelectElement>('study').value);
  element<HTMLInputElement>('opacity').oninput = paint;
  element('undo').onclick = undo;
  element('clear').onclick = clear;
  element('doubt').onclick = showDoubt;
  element('save').onclick = () => void save();
  element<HTMLFormElement>('add').onsubmit = event => {
    event.preventDefault();
    const name = element<HTMLInputElement>('name').value.trim();
    if (!name) return;
    element<HTMLInputElement>('name').value = '';
    choose(structures.find(one => one.name === name) ?? added(name));
  };
  addEventListener('keydown', event => {
    const isTyping = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
    if (event.key === 'n' && !event.ctrlKey && !event.metaKey && !isTyping) return showDoubt();
    if (!event.ctrlKey && !event.metaKey) return;
    if (event.key === 'z') undo();
    else if (event.key === 's') void save();
    else return;
    event.preventDefault();
  });
  addEventListener('beforeunload', event => !isSaved && event.preventDefault());
  try {
    await viewer.start();
    const all = await listStudies();
    if (!all.length) return tell('There are no studies here yet.', 'fault');
    const wished = new URLSearchParams(location.search).get('study');
    study = all.find(one => one.id === wished)?.id ?? all[0].id;
    element<HTMLSelectElement>('study').value = study;
    await open(study);
  } catch (error) {
    tell((error as Error).message, 'fault');
  }
}

// For tests, and for whoever looks into it: where a voxel is on the page, and what is painted.
Object.assign(globalThis, { deepgrow3d: { viewer, painted, structures: () => structures } });

void start();
