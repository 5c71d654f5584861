// The list of structures: a colour, a name, and how often it was clicked.
import type { Structure } from './structures';

const STEPS: Record<string, (place: number, last: number) => number> = {
  ArrowDown: (place, last) => Math.min(place + 1, last),
  ArrowUp: place => Math.max(place - 1, 0),
  Home: () => 0,
  End: (_, last) => last,
};

/** Each structure has one item as long as it is listed: a press and a release make a click only on the same one. */
export class StructureList {
  private items = new Map<Structure, HTMLElement>();

  constructor(
    private readonly list: HTMLElement,
    private readonly choose: (structure: Structure) => void,
  ) {
    list.addEventListener('keydown', event => this.pressed(event));
  }

  show(structures: Structure[], current: Structure | null): void {
    const listed = [...this.items.keys()];
    if (listed.length !== structures.length || listed.some((one, place) => one !== structures[place])) {
      this.items = new Map(structures.map(one => [one, this.items.get(one) ?? this.itemOf(one)]));
      for (const item of [...this.list.children]) if (![...this.items.values()].includes(item as HTMLElement)) item.remove();
      for (const item of this.items.values()) if (!item.isConnected) this.list.append(item); // new ones are the last
    }
    const reached = current ?? structures[0]; // by the Tab key; from there on by arrows
    for (const [structure, item] of this.items) {
      const [colour, , count] = item.childNodes as unknown as [HTMLElement, Text, HTMLElement];
      item.setAttribute('aria-selected', String(structure === current));
      item.tabIndex = structure === reached ? 0 : -1;
      colour.style.background = structure.isEmpty ? 'transparent' : `rgb(${structure.colour})`;
      count.textContent = structure.clicks.length ? String(structure.clicks.length) : '';
    }
  }

  private itemOf(structure: Structure): HTMLElement {
    const item = document.createElement('li');
    item.setAttribute('role', 'option');
    const colour = document.createElement('span');
    colour.style.borderColor = `rgb(${structure.colour})`;
    item.append(colour, structure.name, document.createElement('small'));
    item.onclick = () => {
      this.choose(structure);
      item.blur(); // whoever points goes on in the image, where keys turn the slices
    };
    return item;
  }

  private pressed(event: KeyboardEvent): void {
    const items = [...this.items];
    const place = items.findIndex(([, item]) => item === event.target);
    if (place < 0) return;
    const isChosen = event.key === 'Enter' || event.key === ' ';
    const [structure, item] = items[isChosen ? place : (STEPS[event.key]?.(place, items.length - 1) ?? -1)] ?? [];
    if (!structure || !item) return;
    event.preventDefault(); // the list does not scroll
    item.focus();
    this.choose(structure);
  }
}
