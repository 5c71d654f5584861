// The structures that are annotated: each with its own clicks and mask, together one label map.
import type { BoxedMask, Index } from './api';

export interface Click {
  index: Index;
  isPositive: boolean;
}

interface Step {
  clicks: Click[];
  mask: BoxedMask | null;
}

export type Colour = [number, number, number];

const COLOURS: Colour[] = [
  [157, 108, 162], [185, 102, 83], [212, 188, 102], [139, 150, 98], [211, 171, 143], [221, 130, 101], [216, 132, 105],
  [224, 97, 76], [0, 151, 206], [70, 100, 200], [249, 180, 111], [249, 186, 150], [240, 140, 200], [111, 184, 210],
];

/** One structure. What was before its last click can be had back. */
export class Structure {
  private steps: Step[] = [{ clicks: [], mask: null }];
  /** of a label that was saved before; clicks take its place */
  saved: Uint8Array | null = null;

  constructor(
    readonly name: string,
    readonly value: number,
  ) {}

  get colour(): Colour {
    return COLOURS[(this.value - 1) % COLOURS.length];
  }

  get clicks(): Click[] {
    return this.steps[this.steps.length - 1].clicks;
  }

  get mask(): BoxedMask | null {
    return this.steps[this.steps.length - 1].mask;
  }

  /** Where the network was least sure when it drew the mask. */
  get doubt(): Index | null {
    return this.mask?.doubt ?? null;
  }

  get canUndo(): boolean {
    return this.steps.length > 1;
  }

  clicked(clicks: Click[], mask: BoxedMask | null): void {
    this.steps.push({ clicks, mask });
  }

  undo(): void {
    if (this.canUndo) this.steps.pop();
  }

  clear(): void {
    if (this.clicks.length || this.saved) this.steps.push({ clicks: [], mask: null });
    this.saved = null;
  }

  get isEmpty(): boolean {
    return this.mask === null && this.saved === null;
  }
}

/** All structures as one label map on the grid of the image, i fastest; where two overlap, the later one has the voxel. */
export function labelMap(structures: Structure[], shape: Index): Uint8Array {
  const [ni, nj, nk] = shape;
  const map = new Uint8Array(ni * nj * nk);
  for (const { value, mask, saved } of structures) {
    if (mask) {
      const { start, extents, inside } = mask;
      let place = 0;
      for (let i = 0; i < extents[0]; i++)
        for (let j = 0; j < extents[1]; j++)
          for (let k = 0; k < extents[2]; k++)
            if (inside[place++]) map[start[0] + i + ni * (start[1] + j + nj * (start[2] + k))] = value;
    } else if (saved) {
      for (let place = 0; place < map.length; place++) if (saved[place]) map[place] = value;
    }
  }
  return map;
}
