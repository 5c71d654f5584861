// What the pages ask the server.
import { studyNames } from './study_names';

export type Index = [number, number, number];

export interface Status {
  version: string;
  model: { name: string; date: string; devices: string[]; scores: { data: string; clicks: Record<string, number> }[] };
  studies: { total: number; done: number; is_dicomweb: boolean };
  clicks: { waiting: number; running: number; answered: number; median_s: number | null };
  training: { is_running: boolean; step: number; total_steps: number; dice: [number, number][]; message: string } | null;
}

export interface Study {
  id: string;
  name: string;
  isDone: boolean;
}

export interface BoxedMask {
  shape: Index;
  start: Index;
  extents: Index;
  /** a byte for each voxel of the box, k fastest */
  inside: Uint8Array;
  /** where the network is least sure: the click that would tell it most */
  doubt: Index | null;
  seconds: number;
}

/** The clicks that a mask was computed from. */
export interface ClickSets {
  foreground: Index[];
  background: Index[];
}

export interface SavedLabel {
  /** a byte for each voxel of the image, i fastest */
  values: Uint8Array;
  names: LabelName[];
  version: number;
}

export interface LabelName {
  name: string;
  idx: number;
}

/** What is known of a saved label. */
export interface LabelInfo {
  names: LabelName[];
  /** 0 where another program stored it: what is saved here is numbered from 1 */
  version: number;
  /** who had signed in; '' where nobody has to */
  savedBy: string;
}

/** The server's own answer that it will not. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    reason: string,
  ) {
    super(reason);
  }
}

/** A saved label that was read, and cannot be shown. */
export class UnreadableLabel extends Error {}

const NIFTI_DATATYPE = 70;
const NIFTI_VOXELS_AT = 108;
const UINT8 = 2;

const BAD_REQUEST = 400;
const UNAUTHORIZED = 401;
const NOT_FOUND = 404;
const READS = 4; // of a label that is saved again and again meanwhile

let isAnythingUnsaved = () => false;

/** Whoever has to sign in again stays on the page while `check` finds something that would be lost. */
export function stayWhile(check: () => boolean): void {
  isAnythingUnsaved = check;
}

async function answered(response: Response): Promise<Response> {
  if (response.ok) return response;
  if (response.status === UNAUTHORIZED && !isAnythingUnsaved())
    location.assign(`login?next=${encodeURIComponent(location.pathname + location.search)}`);
  const text = await response.text();
  let reason = `The server answered with status ${response.status}.`;
  try {
    reason = JSON.parse(text).detail ?? reason;
  } catch {
    // a proxy in between has its own words
  }
  throw new Refused(response.status, reason);
}

export async function status(): Promise<Status> {
  return (await answered(await fetch('status'))).json();
}

export async function structureNames(signal?: AbortSignal): Promise<string[]> {
  return (await (await answered(await fetch('info/', { signal }))).json()).labels;
}

export async function studies(signal?: AbortSignal): Promise<Study[]> {
  const all = await (await answered(await fetch('datastore/?output=all', { signal }))).json();
  const entries = Object.entries<any>(all.objects);
  const names = studyNames(new Map(entries.map(([id, entry]) => [id, entry.image.info])));
  return entries
    .map(([id, entry]) => ({ id, name: names.get(id)!, isDone: 'final' in entry.labels }))
    .sort((one, other) => Number(one.isDone) - Number(other.isDone) || one.name.localeCompare(other.name));
}

/** Where an image's voxels lie, as the server reads its header: some headers can be read in two ways. */
export interface Geometry {
  shape: Index;
  spacing_mm: [number, number, number];
  /** 4 x 4, voxel index to mm in RAS+ */
  affine: number[][];
}

export async function geometry(study: string, signal?: AbortSignal): Promise<Geometry> {
  return (await answered(await fetch(`datastore/image/geometry?image=${encodeURIComponent(study)}`, { signal }))).json();
}

export interface ImageFile {
  /** tells the format */
  name: string;
  /** another one whenever the image is; undefined where a proxy took it away */
  etag: string | undefined;
  content: ArrayBuffer;
}

export async function image(study: string, signal?: AbortSignal): Promise<ImageFile> {
  const file = await answered(await fetch(`datastore/image?image=${encodeURIComponent(study)}`, { signal }));
  const named = /filename\*?=(?:utf-8'')?"?([^";]+)/i.exec(file.headers.get('content-disposition') ?? '');
  const tagged = /^(?:W\/)?"(.+)"$/.exec(file.headers.get('etag') ?? ''); // a proxy that compresses makes it a weak one
  return {
    name: named ? decodeURIComponent(named[1]) : 'image.nii.gz',
    etag: tagged?.[1],
    content: await file.arrayBuffer(),
  };
}

/** What an annotator asks for. */
export interface MaskToDraw {
  label: string;
  clicks: ClickSets;
  /** of the image that was clicked in; where it is another one now, the server refuses */
  imageEtag: string | undefined;
}

export async function mask(
  study: string,
  { label, clicks, imageEtag }: MaskToDraw,
  client: string,
  signal?: AbortSignal,
): Promise<BoxedMask> {
  const form = new FormData();
  form.append('params', JSON.stringify({ label, client_id: client, image_etag: imageEtag, ...clicks }));
  const url = `infer/deepgrow3d?image=${encodeURIComponent(study)}&output=compact`;
  const started = performance.now();
  const answer = await (await answered(await fetch(url, { method: 'POST', body: form, signal }))).json();
  const packed = Uint8Array.from(atob(answer.bits), character => character.charCodeAt(0));
  const { shape, start, extents } = answer;
  const inside = unpackBits(await gunzip(packed), extents[0] * extents[1] * extents[2]);
  const doubt = answer.params.suggestion?.index ?? null;
  return { shape, start, extents, inside, doubt, seconds: (performance.now() - started) / 1000 };
}

/** What an annotator saves. */
export interface LabelToSave {
  values: Uint8Array;
  names: LabelName[];
  clicks: Record<string, ClickSets>;
  /** the version that it started from; where another one is the newest, the server refuses */
  basedOn: number;
  /** of the image that it was drawn on; where it is another one now, the server refuses */
  imageEtag: string | undefined;
}

/** Returns the version, and what the annotator should know: that somebody else had saved a label of this study. */
export async function save(
  study: string,
  { values, names, clicks, basedOn, imageEtag }: LabelToSave,
  client: string,
): Promise<{ version: number; notice: string }> {
  const form = new FormData();
  const started = { based_on: basedOn, image_etag: imageEtag };
  const params = { label_info: names, click_sets: clicks, ...started, model: 'deepgrow3d', client_id: client };
  form.append('params', JSON.stringify(params));
  form.append('label', new Blob([values as BlobPart]), 'label.bin');
  const url = `datastore/label?image=${encodeURIComponent(study)}&tag=final`;
  const saved = await (await answered(await fetch(url, { method: 'PUT', body: form }))).json();
  return { version: saved.version, notice: saved.notice ?? '' };
}

const finalLabel = (study: string) => `label=${encodeURIComponent(study)}&tag=final`;

/** What is known of the final label; null where there is none. */
export async function labelInfo(study: string, signal?: AbortSignal): Promise<LabelInfo | null> {
  const answer = await fetch(`datastore/label/info?${finalLabel(study)}`, { signal });
  if (answer.status === NOT_FOUND) return null;
  await refuseUnreadable(answer); // a DICOMweb server's label is read for its names
  const info = await (await answered(answer)).json();
  return { names: info.label_info ?? [], version: info.version ?? 0, savedBy: info.saved_by ?? '' };
}

/**
 * The final label on the grid of the image, whatever the format of its file; null where there is none.
 * Its names and its voxels come one after the other, and belong together only where it was not saved in between.
 */
export async function savedLabel(study: string, signal?: AbortSignal): Promise<SavedLabel | null> {
  let info = await labelInfo(study, signal);
  for (let reads = 0; info && reads < READS; reads++) {
    const values = await labelValues(study, signal).catch((error: unknown) => error as Error);
    const after = await labelInfo(study, signal);
    if (after?.version === info.version) {
      if (values instanceof Error) throw values;
      return { values, names: info.names, version: info.version };
    }
    info = after;
  }
  if (!info) return null;
  throw new Error('The saved label was replaced again and again while it was read. Choose the study once more.');
}

async function labelValues(study: string, signal?: AbortSignal): Promise<Uint8Array> {
  const answer = await fetch(`datastore/label?${finalLabel(study)}&output=uint8`, { signal });
  await refuseUnreadable(answer);
  const bytes = await gunzip(new Uint8Array(await (await answered(answer)).arrayBuffer()));
  const header = new DataView(bytes.buffer, bytes.byteOffset);
  if (header.getInt16(NIFTI_DATATYPE, true) !== UINT8) throw new UnreadableLabel('The saved label does not hold bytes.');
  return bytes.subarray(header.getFloat32(NIFTI_VOXELS_AT, true));
}

/** The server read a label: it is no label map, or lies on another grid. Any other refusal may be over the next time. */
async function refuseUnreadable(answer: Response): Promise<void> {
  if (answer.status === BAD_REQUEST) throw new UnreadableLabel((await answer.json()).detail);
}

export function unpackBits(bytes: Uint8Array, count: number): Uint8Array {
  const bits = new Uint8Array(count);
  for (let place = 0; place < count; place++) bits[place] = (bytes[place >> 3] >> (7 - (place & 7))) & 1;
  return bits;
}

async function gunzip(packed: Uint8Array): Promise<Uint8Array> {
  const unpacked = new Blob([packed as BlobPart]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}
