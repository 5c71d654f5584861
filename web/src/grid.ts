// From millimetres to voxels of the stored image, and from its order of axes to the one that is shown.
import type { Index } from './api';

export type Affine = number[][];

/** The stored voxel at a place in mm, for an affine (4 x 4) from voxel index to mm; null outside the image. */
export function indexAt(mm: ArrayLike<number>, affine: Affine, shape: Index): Index | null {
  const [a, b, c] = affine;
  const [x, y, z] = [mm[0] - a[3], mm[1] - b[3], mm[2] - c[3]];
  const determinant =
    a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0]);
  const index = [
    (x * (b[1] * c[2] - b[2] * c[1]) - a[1] * (y * c[2] - b[2] * z) + a[2] * (y * c[1] - b[1] * z)) / determinant,
    (a[0] * (y * c[2] - b[2] * z) - x * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * z - y * c[0])) / determinant,
    (a[0] * (b[1] * z - y * c[1]) - a[1] * (b[0] * z - y * c[0]) + x * (b[0] * c[1] - b[1] * c[0])) / determinant,
  ].map(Math.round) as Index;
  return index.every((place, axis) => place >= 0 && place < shape[axis]) ? index : null;
}

/**
 * `map` (i fastest, of `shape`) in another order of axes.
 * `axes` says for each new axis which stored one it is, from 1, and below zero where it runs backwards.
 */
export function reordered(map: Uint8Array, shape: Index, axes: number[]): Uint8Array {
  const strides = [1, shape[0], shape[0] * shape[1]];
  const [x, y, z] = axes.map(axis => {
    const stored = Math.abs(axis) - 1;
    return axis > 0
      ? { count: shape[stored], first: 0, step: strides[stored] }
      : { count: shape[stored], first: (shape[stored] - 1) * strides[stored], step: -strides[stored] };
  });
  const shown = new Uint8Array(map.length);
  let place = 0;
  for (let k = 0, atK = x.first + y.first + z.first; k < z.count; k++, atK += z.step)
    for (let j = 0, atJ = atK; j < y.count; j++, atJ += y.step)
      for (let i = 0, atI = atJ; i < x.count; i++, atI += x.step) shown[place++] = map[atI];
  return shown;
}
