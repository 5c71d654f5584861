// The structures that are annotated: each with its own clicks and mask, together one label map.
import type { BoxedMask, Index } from './api';
import { Turns } from './turns';

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

/** A click that does not count yet; `whenGivenUp` ends its request. */
export interface Asked {
  click: Click;
  whenGivenUp: AbortController;
}

export type Colour = [number, number, number];

export const MAX_VALUE = 252; // the viewer draws dots with the values above
// In the order of the structures that the server knows. All differ clearly from each other, and from the viewer's dots.
const COLOURS: Colour[] = [
  [150, 80, 200], [130, 85, 50], [0, 140, 140], [60, 140, 45], [215, 190, 255], [230, 130, 75], [90, 170, 255],
  [215, 40, 120], [45, 75, 220], [80, 225, 235], [250, 205, 150], [240, 100, 225], [170, 250, 200], [165, 170, 30],
];

/** One structure. What was before its last click can be had back. */
export class Structure {
  private steps: Step[] = [{ clicks: [], mask: null, saved: null }];
  /** what does not count yet, in the order of the clicks */
  private asked: Asked[] = [];
  private readonly turns = new Turns();

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

  /** All clicks so far, those included that are not answered yet. */
  get placed(): Click[] {
    return this.asked.reduce((clicks, { click }) => withClick(clicks, click), this.clicks);
  }

  /** Whether something would be left to draw: clicks outside alone say nothing. */
  mayAsk(click: Click): boolean {
    return withClick(this.placed, click).some(one => one.isPositive);
  }

  ask(click: Click): Asked {
    const asked = { click, whenGivenUp: new AbortController() };
    this.asked.push(asked);
    return asked;
  }

  /**
   * Have `asked` answered as soon as all before it are: each click is a step then, and whichever is refused is in none
   * of the later ones. Returns its mask; null where the click was taken back meanwhile.
   */
  answer(asked: Asked, send: (clicks: Click[], signal: AbortSignal) => Promise<BoxedMask>): Promise<BoxedMask | null> {
    return this.turns.add(async () => {
      const isWanted = () => this.asked.includes(asked);
      if (!isWanted()) return null;
      try {
        const clicks = withClick(this.clicks, asked.click);
        if (!clicks.some(one => one.isPositive)) throw new Error(`First click inside the ${this.name}.`);
        const mask = await send(clicks, asked.whenGivenUp.signal);
        if (!isWanted()) return null;
        this.steps.push({ clicks, mask, saved: null });
        return mask;
      } catch (error) {
        if (isWanted()) throw error;
        return null;
      } finally {
        this.asked = this.asked.filter(one => one !== asked);
      }
    });
  }

  /** Nothing that was asked for is wanted any more. */
  giveUp(): void {
    for (const { whenGivenUp } of this.asked) whenGivenUp.abort();
    this.asked = [];
  }

  /** Take the last click back; returns whether the mask is another one now. */
  undo(): boolean {
    const asked = this.asked.pop();
    asked?.whenGivenUp.abort();
    if (asked || !this.canUndo) return false;
    this.steps.pop();
    return true;
  }

  /** Returns whether the mask is another one now. */
  clear(): boolean {
    this.giveUp();
    if (this.isEmpty) return false;
    this.steps.push({ clicks: [], mask: null, saved: null });
    return true;
  }
}

/** A voxel is clicked only once. */
function withClick(clicks: Click[], click: Click): Click[] {
  const isSame = (other: Click) => other.index.every((place, axis) => place === click.index[axis]);
  return [...clicks.filter(other => !isSame(other)), click];
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
