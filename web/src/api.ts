// What the pages ask the server.

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
  names: { name: string; idx: number }[];
}

const NIFTI_DATATYPE = 70;
const NIFTI_VOXELS_AT = 108;
const UINT8 = 2;

async function answered(response: Response): Promise<Response> {
  if (response.ok) return response;
  if (response.status === 401) location.assign(`login?next=${encodeURIComponent(location.pathname + location.search)}`);
  const text = await response.text();
  let reason = `The server answered with status ${response.status}.`;
  try {
    reason = JSON.parse(text).detail ?? reason;
  } catch {
    // a proxy in between has its own words
  }
  throw new Error(reason);
}

export async function status(): Promise<Status> {
  return (await answered(await fetch('status'))).json();
}

export async function structureNames(): Promise<string[]> {
  return (await (await answered(await fetch('info/'))).json()).labels;
}

export async function studies(): Promise<Study[]> {
  const all = await (await answered(await fetch('datastore/?output=all'))).json();
  return Object.entries<any>(all.objects)
    .map(([id, entry]) => ({
      id,
      name: entry.image.info.SeriesDescription
        ? `${entry.image.info.PatientID}: ${entry.image.info.SeriesDescription}`
        : id,
      isDone: 'final' in entry.labels,
    }))
    .sort((one, other) => Number(one.isDone) - Number(other.isDone) || one.name.localeCompare(other.name));
}

/** The image's file, and its name, which tells the format. */
export async function image(study: string): Promise<{ name: string; content: ArrayBuffer }> {
  const file = await answered(await fetch(`datastore/image?image=${encodeURIComponent(study)}`));
  const named = /filename\*?=(?:utf-8'')?"?([^";]+)/i.exec(file.headers.get('content-disposition') ?? '');
  return { name: named ? decodeURIComponent(named[1]) : 'image.nii.gz', content: await file.arrayBuffer() };
}

export async function mask(
  study: string,
  label: string,
  client: string,
  clicks: ClickSets,
): Promise<BoxedMask> {
  const form = new FormData();
  form.append('params', JSON.stringify({ label, client_id: client, ...clicks }));
  const url = `infer/deepgrow3d?image=${encodeURIComponent(study)}&output=compact`;
  const started = performance.now();
  const answer = await (await answered(await fetch(url, { method: 'POST', body: form }))).json();
  const packed = Uint8Array.from(atob(answer.bits), character => character.charCodeAt(0));
  const { shape, start, extents } = answer;
  const inside = unpackBits(await gunzip(packed), extents[0] * extents[1] * extents[2]);
  const doubt = answer.params.suggestion?.index ?? null;
  return { shape, start, extents, inside, doubt, seconds: (performance.now() - started) / 1000 };
}

/** Returns what the annotator should know: that somebody else had saved a label of this study, for example. */
export async function save(
  study: string,
  values: Uint8Array,
  names: { name: string; idx: number }[],
  clicks: Record<string, ClickSets>,
  client: string,
): Promise<string> {
  const form = new FormData();
  const params = { label_info: names, click_sets: clicks, model: 'deepgrow3d', client_id: client };
  form.append('params', JSON.stringify(params));
  form.append('label', new Blob([values as BlobPart]), 'label.bin');
  const url = `datastore/label?image=${encodeURIComponent(study)}&tag=final`;
  return (await (await answered(await fetch(url, { method: 'PUT', body: form }))).json()).notice ?? '';
}

/** The final label on the grid of the image, whatever the format of its file. */
export async function savedLabel(study: string): Promise<SavedLabel> {
  const query = `label=${encodeURIComponent(study)}&tag=final`;
  const file = await answered(await fetch(`datastore/label?${query}&output=uint8`));
  const info = await (await answered(await fetch(`datastore/label/info?${query}`))).json();
  const bytes = await gunzip(new Uint8Array(await file.arrayBuffer()));
  const header = new DataView(bytes.buffer, bytes.byteOffset);
  if (header.getInt16(NIFTI_DATATYPE, true) !== UINT8) throw new Error('The saved label does not hold bytes.');
  return { values: bytes.subarray(header.getFloat32(NIFTI_VOXELS_AT, true)), names: info.label_info ?? [] };
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
