// What is drawn on one study, and how much of that the server has.
import { type ClickSets, type Index, type LabelToSave, type SavedLabel, type Study, UnreadableLabel } from './api';
import { type Click, MAX_VALUE, Structure, labelMap } from './structures';

export const NO_STUDY: Study = { id: '', name: '', isDone: false };

export class Drawing {
  readonly structures: Structure[];
  current: Structure | null;
  /** why the saved label cannot be shown: to save would replace it unseen */
  readonly unreadable: string;
  private version = 0;
  private isStored = false; // there is a saved label
  private changes = 0;
  private storedChanges = 0; // how many of them the server has

  constructor(
    readonly study: Study,
    names: string[],
    private readonly shape: Index,
    /** of the image that is drawn on */
    readonly imageEtag: string | undefined,
    saved: SavedLabel | UnreadableLabel | null,
  ) {
    this.structures = names.map((name, place) => new Structure(name, place + 1));
    this.isStored = saved !== null;
    this.unreadable = saved ? this.whyNotAdded(saved) : '';
    this.current = this.structures[0] ?? null;
  }

  /** The saved version that this goes back to; 0 where there was none, or that of another program. */
  get basedOn(): number {
    return this.version;
  }

  /** Whether something would be lost with the drawing; not where all of it was taken back, and nothing is stored. */
  get hasUnsaved(): boolean {
    return this.isChanged || this.structures.some(one => one.isWaiting);
  }

  /** Whether there is anything to save that was not saved, and it may be. */
  get canSave(): boolean {
    return this.isChanged && !this.unreadable;
  }

  private get isChanged(): boolean {
    const isNothing = !this.isStored && this.structures.every(one => one.isEmpty);
    return this.changes !== this.storedChanges && !isNothing;
  }

  changed(): void {
    this.changes++;
  }

  painted(): Uint8Array {
    return labelMap(this.structures, this.shape);
  }

  /** A structure of that name, a new one where there is none; null where there are too many. */
  structure(name: string): Structure | null {
    const known = this.structures.find(one => one.name === name);
    if (known) return known;
    const value = Math.max(0, ...this.structures.map(one => one.value)) + 1;
    if (value > MAX_VALUE) return null;
    const added = new Structure(name, value);
    this.structures.push(added);
    return added;
  }

  /** What is to be saved now, and what to call once it is: what is clicked meanwhile is not saved then. */
  toSave(): { label: LabelToSave; stored: (version: number) => void } {
    const { changes } = this;
    const used = this.structures.filter(one => !one.isEmpty);
    const label = {
      values: this.painted(),
      names: used.map(one => ({ name: one.name, idx: one.value })),
      clicks: Object.fromEntries(used.filter(one => one.mask).map(one => [one.name, clickSets(one.clicks)])),
      basedOn: this.basedOn,
      imageEtag: this.imageEtag,
    };
    const stored = (version: number) => {
      this.version = version;
      this.isStored = true;
      this.storedChanges = changes;
    };
    return { label, stored };
  }

  /** Whoever draws knows of that version, and wants this in its place. */
  replaces(version: number): void {
    this.version = version;
  }

  /** It is not shown any more: no click is waited for. */
  leave(): void {
    for (const structure of this.structures) structure.giveUp();
  }

  /** Give every structure its part of the label; returns why that is not possible, or ''. */
  private whyNotAdded(saved: SavedLabel | UnreadableLabel): string {
    if (saved instanceof UnreadableLabel) return saved.message;
    const { values, names, version } = saved;
    const [ni, nj, nk] = this.shape;
    if (values.length !== ni * nj * nk) return 'It does not lie on the image.';
    this.version = version;
    const used = new Set(values);
    used.delete(0);
    for (const value of used) {
      const structure = this.structure(names.find(one => one.idx === value)?.name ?? `label ${value}`);
      if (!structure) return 'It has too many structures.';
      structure.addSaved(values, value);
    }
    return '';
  }
}

export function clickSets(clicks: Click[]): ClickSets {
  const side = (isPositive: boolean) => clicks.filter(one => one.isPositive === isPositive).map(one => one.index);
  return { foreground: side(true), background: side(false) };
}
