// The structures that are annotated: each with its own clicks and mask, together one label map.
import type { BoxedMask, Index } from './api';

export interface Click {
  index: Index;
  isPositive: boolean;
}

/** A structure's part of a label that was saved before: the voxels of `map` with one of these values. */
export interface SavedPart {
  /** the whole label, shared by all its structures, i fastest */
  map: Uint8Array;
  values: Set<number>;
}

interface Step {
  clicks: Click[];
  mask: BoxedMask | null;
  /** clicks take its place */
  saved: SavedPart | null;
}

/** Clicks that were sent, and their mask as soon as it is there. */
export interface Asked {
  clicks: Click[];
  mask: BoxedMask | null;
}

export type Colour = [number, number, number];

export const MAX_VALUE = 252; // the viewer draws dots with the values above
const COLOURS: Colour[] = [
  [157, 108, 162], [185, 102, 83], [212, 188, 102], [139, 150, 98], [211, 171, 143], [221, 130, 101], [216, 132, 105],
  [224, 97, 76], [0, 151, 206], [70, 100, 200], [249, 180, 111], [249, 186, 150], [240, 140, 200], [111, 184, 210],
];

/** One structure. What was before its last click can be had back. */
export class Structure {
  private steps: Step[] = [{ clicks: [], mask: null, saved: null }];
  /** what was sent and does not count yet, in the order of the clicks */
  private asked: Asked[] = [];

  constructor(
    readonly name: string,
    readonly value: number,
  ) {}

  get colour(): Colour {
    return COLOURS[(this.value - 1) % COLOURS.length];
  }

  private get last(): Step {
    return this.steps[this.steps.length - 1];
  }

  /** Those that the mask was computed from. */
  get clicks(): Click[] {
    return this.last.clicks;
  }

  get mask(): BoxedMask | null {
    return this.last.mask;
  }

  get saved(): SavedPart | null {
    return this.last.saved;
  }

  /** Where the network was least sure when it drew the mask. */
  get doubt(): Index | null {
    return this.mask?.doubt ?? null;
  }

  get isWaiting(): boolean {
    return this.asked.length > 0;
  }

  get canUndo(): boolean {
    return this.isWaiting || this.steps.length > 1;
  }

  get isEmpty(): boolean {
    return this.mask === null && this.saved === null;
  }

  /** A label was saved before: its voxels of `value` are this structure's. */
  addSaved(map: Uint8Array, value: number): void {
    const values = new Set(this.saved?.values).add(value);
    this.steps = [{ clicks: [], mask: null, saved: { map, values } }];
  }

  /** All clicks so far and `click`, those included that are not answered yet; a voxel is clicked only once. */
  with(click: Click): Click[] {
    const isSame = (other: Click) => other.index.every((place, axis) => place === click.index[axis]);
    const before = this.isWaiting ? this.asked[this.asked.length - 1].clicks : this.clicks;
    return [...before.filter(other => !isSame(other)), click];
  }

  ask(clicks: Click[]): Asked {
    const asked = { clicks, mask: null };
    this.asked.push(asked);
    return asked;
  }

  /**
   * The server answered. Each answer is a step, in the order of the clicks, whichever comes first.
   * Returns whether anything is still wanted of it.
   */
  answered(asked: Asked, mask: BoxedMask): boolean {
    if (!this.asked.includes(asked)) return false; // taken back meanwhile
    asked.mask = mask;
    while (this.asked.length && this.asked[0].mask) {
      const { clicks, mask } = this.asked.shift()!;
      this.steps.push({ clicks, mask, saved: null });
    }
    return true;
  }

  /** The server refused. Later clicks were sent with these, and have an answer of their own. */
  failed(asked: Asked): boolean {
    const place = this.asked.indexOf(asked);
    if (place >= 0) this.asked.splice(place, 1);
    return place >= 0;
  }

  /** Take the last click back; returns whether the mask is another one now. */
  undo(): boolean {
    if (this.asked.pop() || !this.canUndo) return false;
    this.steps.pop();
    return true;
  }

  /** Returns whether the mask is another one now. */
  clear(): boolean {
    this.asked = [];
    if (this.isEmpty) return false;
    this.steps.push({ clicks: [], mask: null, saved: null });
    return true;
  }
}

/** All structures as one label map on the grid of the image, i fastest; where two overlap, the later one has the voxel. */
export function labelMap(structures: Structure[], shape: Index): Uint8Array {
  const map = savedMap(structures, shape[0] * shape[1] * shape[2]);
  const [ni, nj] = shape;
  for (const { value, mask } of structures) {
    if (!mask) continue;
    const { start, extents, inside } = mask;
    let place = 0;
    for (let i = 0; i < extents[0]; i++)
      for (let j = 0; j < extents[1]; j++)
        for (let k = 0; k < extents[2]; k++) {
          if (!inside[place++]) continue;
          const voxel = start[0] + i + ni * (start[1] + j + nj * (start[2] + k));
          if (map[voxel] < value) map[voxel] = value; // values grow along the list
        }
  }
  return map;
}

/** What is left of the label that was saved before, in the values of the structures. */
function savedMap(structures: Structure[], count: number): Uint8Array {
  const kept = structures.flatMap(({ saved, value }) => (saved ? [{ saved, value }] : []));
  if (!kept.length) return new Uint8Array(count);
  const shown = new Uint8Array(256);
  for (const { saved, value } of kept) for (const one of saved.values) shown[one] = value;
  return kept[0].saved.map.map(one => shown[one]);
}
