// Three orthogonal slices, drawn by NiiVue; what is painted over them, and where they are clicked.
import { NVImage, Niivue, SLICE_TYPE } from '@niivue/niivue';
import type { Geometry, Index } from './api';
import { type Affine, indexAt, reordered } from './grid';
import { type Click, type Colour, MAX_VALUE, type Structure } from './structures';

const TRUE_MM = true; // NiiVue turns oblique images upright otherwise, millimetres and all
const DRAG_PX = 4; // a press that moves further is no click
const LONG_PRESS_MS = 500; // a finger has no right button
const DOUBT = MAX_VALUE + 1; // values of the dots, above those of all structures
const INSIDE = MAX_VALUE + 2;
const OUTSIDE = MAX_VALUE + 3;
const DOT_COLOURS: [number, Colour][] = [[DOUBT, [255, 225, 0]], [INSIDE, [80, 255, 80]], [OUTSIDE, [255, 60, 60]]];

interface Tile {
  sliceType: SLICE_TYPE;
  position: [number, number, number, number];
}

const WIDE: Tile[] = [
  { sliceType: SLICE_TYPE.AXIAL, position: [0, 0, 0.64, 1] },
  { sliceType: SLICE_TYPE.CORONAL, position: [0.645, 0, 0.355, 0.497] },
  { sliceType: SLICE_TYPE.SAGITTAL, position: [0.645, 0.503, 0.355, 0.497] },
];
const TALL: Tile[] = [
  { sliceType: SLICE_TYPE.AXIAL, position: [0, 0, 1, 0.62] },
  { sliceType: SLICE_TYPE.CORONAL, position: [0, 0.625, 0.497, 0.375] },
  { sliceType: SLICE_TYPE.SAGITTAL, position: [0.503, 0.625, 0.497, 0.375] },
];

export class Viewer {
  private readonly niivue: Niivue;
  shape: Index = [0, 0, 0];
  private affine: Affine = [];
  private axes: number[] = [1, 2, 3];
  private pressed: { x: number; y: number; since: number; low: number; high: number } | null = null;
  private colours = ''; // those that the drawing has now
  private layout: Tile[] | null = null;
  /** Whether values are Hounsfield units: only a CT has air so far below zero. */
  isCt = false;
  /** The browser took the graphics card away: nothing is drawn any more, and nobody sees what is clicked. */
  isLost = false;

  constructor(
    private readonly canvas: HTMLCanvasElement,
    private readonly onClick: (click: Click) => void,
    private readonly onLost: () => void,
  ) {
    this.niivue = new Niivue({
      dragAndDropEnabled: false,
      isColorbar: false,
      show3Dcrosshair: false,
      crosshairWidth: 0.35,
      crosshairGap: 6,
      crosshairColor: [0.3, 0.75, 1, 0.6],
      backColor: [0.04, 0.05, 0.08, 1],
      fontColor: [0.6, 0.75, 0.95, 1],
      fontMinPx: 18,
      isRadiologicalConvention: true,
      loadingText: '',
      logLevel: 'error',
    } as object);
    this.niivue.resetBriCon = () => undefined; // two quick clicks or a long touch would change the contrast
  }

  async start(): Promise<void> {
    await this.niivue.attachToCanvas(this.canvas);
    new ResizeObserver(() => this.layOut()).observe(this.canvas);
    this.layOut();
    this.listen();
  }

  /** Show an image; nothing is shown where it cannot be read. */
  async open(content: ArrayBuffer, name: string, geometry: Geometry): Promise<void> {
    this.close();
    const volume = await NVImage.loadFromUrl({ url: content, name });
    this.shape = volume.hdr!.dims.slice(1, 4) as Index;
    if (geometry.shape.some((count, axis) => count !== this.shape[axis]))
      throw new Error('The image was replaced meanwhile. Choose it again.');
    this.affine = volume.hdr!.affine = geometry.affine; // left and right as the server, and who trains, has them
    volume.hdr!.pixDims.splice(1, 3, ...geometry.spacing_mm);
    volume.calculateRAS();
    this.niivue.addVolume(volume);
    this.axes = volume.permRAS!;
    this.isCt = lowest(volume) < -500;
    this.niivue.createEmptyDrawing();
  }

  /** Show nothing. */
  close(): void {
    this.pressed = null;
    this.shape = [0, 0, 0];
    this.isCt = false;
    if (!this.niivue.volumes.length) return;
    this.niivue.closeDrawing();
    for (const volume of [...this.niivue.volumes]) this.niivue.removeVolume(volume);
  }

  get isOpen(): boolean {
    return this.niivue.volumes.length > 0;
  }

  /** Where the slices cross, as NiiVue counts: from 0 to 1 along each axis. */
  get crosshair(): number[] {
    return Array.from(this.niivue.scene.crosshairPos);
  }

  /** [low, high] of what is black and what is white. */
  get contrast(): [number, number] {
    const volume = this.niivue.volumes[0];
    return [volume.cal_min!, volume.cal_max!];
  }

  set contrast([low, high]: [number, number]) {
    if (this.isLost) return;
    const volume = this.niivue.volumes[0];
    volume.cal_min = low;
    volume.cal_max = high;
    this.niivue.updateGLVolume();
  }

  /** The range that the image itself suggests. */
  get ownContrast(): [number, number] {
    const volume = this.niivue.volumes[0];
    return [volume.robust_min!, volume.robust_max!];
  }

  set opacity(opacity: number) {
    if (!this.isLost) this.niivue.setDrawOpacity(opacity);
  }

  paint(map: Uint8Array, structures: Structure[], current: Structure | null): void {
    if (!this.isOpen || this.isLost) return;
    const painted = map.slice();
    if (current?.doubt) this.dot(painted, current.doubt, DOUBT);
    for (const { index, isPositive } of current?.placed ?? []) this.dot(painted, index, isPositive ? INSIDE : OUTSIDE);
    this.niivue.drawBitmap!.set(reordered(painted, this.shape, this.axes));
    if (structures.length) this.colour(structures);
    this.niivue.refreshDrawing(true);
  }

  /** A table of colours makes NiiVue send the whole image to the graphics card again: only a new one is set. */
  private colour(structures: Structure[]): void {
    const table: (readonly [number, Colour])[] = [
      ...structures.map(structure => [structure.value, structure.colour] as const),
      ...DOT_COLOURS,
    ];
    const colours = JSON.stringify(table);
    if (colours === this.colours) return;
    this.colours = colours;
    const of = (channel: number) => [0, ...table.map(([, colour]) => colour[channel])];
    this.niivue.setDrawColormap({
      R: of(0),
      G: of(1),
      B: of(2),
      A: [0, ...table.map(() => 255)],
      I: [0, ...table.map(([value]) => value)],
      labels: ['', ...table.map(([value]) => String(value))],
    } as never);
  }

  /** The axial slice is the largest, on a screen that is wide and on one that is tall. */
  private layOut(): void {
    const { width, height } = this.canvas.getBoundingClientRect();
    const layout = height > width ? TALL : WIDE;
    if (layout === this.layout) return;
    this.layout = layout;
    this.niivue.setCustomLayout(layout);
  }

  /** Turn the slices by voxels towards right, front and head; no further than the image goes. */
  step(towards: readonly [number, number, number]): void {
    if (this.isOpen && !this.isLost) this.niivue.moveCrosshairInVox(...towards);
  }

  /** Turn the slices to a voxel. */
  turnTo(index: Index): void {
    if (this.isLost) return;
    const mm = [0, 1, 2].map(
      row => this.affine[row][3] + index.reduce((sum, place, column) => sum + this.affine[row][column] * place, 0),
    );
    this.niivue.scene.crosshairPos = this.niivue.mm2frac(mm as never, 0, TRUE_MM);
    this.niivue.drawScene();
  }

  /** The same, and return where it is on the page. */
  show(index: Index): { x: number; y: number } {
    this.turnTo(index);
    const box = this.canvas.getBoundingClientRect();
    const scale = this.niivue.uiData.dpr ?? 1;
    for (let x = 2; x < box.width; x += 2)
      for (let y = 2; y < box.height; y += 2) {
        const tile = this.niivue.screenSlices.find(
          one =>
            one.axCorSag === 0 &&
            x * scale >= one.leftTopWidthHeight[0] &&
            x * scale < one.leftTopWidthHeight[0] + one.leftTopWidthHeight[2] &&
            y * scale >= one.leftTopWidthHeight[1] &&
            y * scale < one.leftTopWidthHeight[1] + one.leftTopWidthHeight[3],
        );
        const found = tile ? this.at(x, y) : null;
        if (found && found.every((place, axis) => place === index[axis])) return { x: box.x + x, y: box.y + y };
      }
    throw new Error('This voxel is on no slice that is shown.');
  }

  private dot(map: Uint8Array, [i, j, k]: Index, value: number): void {
    for (const [di, dj, dk] of [[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]) {
      const [x, y, z] = [i + di, j + dj, k + dk];
      if (x >= 0 && y >= 0 && z >= 0 && x < this.shape[0] && y < this.shape[1] && z < this.shape[2])
        map[x + this.shape[0] * (y + this.shape[1] * z)] = value;
    }
  }

  /** The stored voxel under a place of the canvas; null outside the slices. */
  private at(x: number, y: number): Index | null {
    const scale = this.niivue.uiData.dpr ?? 1;
    const frac = this.niivue.canvasPos2frac([x * scale, y * scale]);
    return frac[0] < 0 ? null : indexAt(this.niivue.frac2mm(frac, 0, TRUE_MM), this.affine, this.shape);
  }

  private listen(): void {
    const { canvas } = this;
    canvas.addEventListener('webglcontextlost', () => this.lose());
    // Before NiiVue, whose own keys would turn the view to one that cannot be clicked.
    for (const kind of ['keydown', 'keyup']) canvas.addEventListener(kind, event => event.stopImmediatePropagation(), true);
    canvas.addEventListener('contextmenu', event => event.preventDefault());
    // Pointers are mouse, pen and fingers: NiiVue takes touches, and no mouse event follows those.
    canvas.addEventListener('pointerdown', event => this.press(event), true);
    canvas.addEventListener('pointerup', event => this.release(event), true);
    canvas.addEventListener('pointercancel', () => (this.pressed = null), true);
    // The right button is for clicks here, and shift for contrast.
    canvas.addEventListener(
      'mousedown',
      event => (event.button === 2 || event.shiftKey) && event.stopImmediatePropagation(),
      true,
    );
    canvas.addEventListener('mousemove', event => this.drag(event), true);
  }

  private lose(): void {
    this.isLost = true;
    this.pressed = null;
    this.onLost();
  }

  private press(event: PointerEvent): void {
    // A second finger: what the two do is no click.
    if (!event.isPrimary || !this.isOpen || this.isLost) return void (this.pressed = null);
    const [low, high] = this.contrast;
    this.pressed = { x: event.clientX, y: event.clientY, since: event.timeStamp, low, high };
  }

  private drag(event: MouseEvent): void {
    if (!this.pressed || !event.shiftKey || event.buttons !== 1) return;
    event.stopImmediatePropagation();
    const { x, y, low, high } = this.pressed;
    const range = high - low;
    const level = (low + high) / 2 + ((event.clientY - y) / 400) * range;
    const width = Math.max(range * Math.exp((event.clientX - x) / 200), 1e-3);
    this.contrast = [level - width / 2, level + width / 2];
  }

  private release(event: PointerEvent): void {
    const { pressed } = this;
    if (!event.isPrimary) return;
    this.pressed = null;
    if (!pressed || event.shiftKey || (event.button !== 0 && event.button !== 2)) return;
    if (Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) > DRAG_PX) return;
    const box = this.canvas.getBoundingClientRect();
    const index = this.at(event.clientX - box.x, event.clientY - box.y);
    const isLong = event.pointerType === 'touch' && event.timeStamp - pressed.since > LONG_PRESS_MS;
    if (index) this.onClick({ index, isPositive: event.button === 0 && !isLong });
  }
}

/** The lowest value of all voxels; NiiVue's own is that of a part in the middle. */
function lowest(volume: NVImage): number {
  const slope = volume.hdr!.scl_slope || 1;
  const intercept = volume.hdr!.scl_inter || 0;
  let low = Infinity;
  for (const stored of volume.img!) {
    const value = stored * slope + intercept;
    if (value < low) low = value;
  }
  return low;
}
