// The list of structures: a colour, a name, and how often it was clicked.
import type { Structure } from './structures';

/** Fill `list`; the keyboard stays where it was. */
export function fill(
  list: HTMLElement,
  structures: Structure[],
  current: Structure | null,
  choose: (structure: Structure) => void,
): void {
  const focused = [...list.children].indexOf(document.activeElement!);
  list.replaceChildren(...structures.map(one => itemOf(one, one === current, () => choose(one))));
  (list.children[focused] as HTMLElement | undefined)?.focus();
}

function itemOf(structure: Structure, isCurrent: boolean, choose: () => void): HTMLElement {
  const item = document.createElement('li');
  item.setAttribute('role', 'option');
  item.setAttribute('aria-selected', String(isCurrent));
  item.tabIndex = 0;
  const colour = document.createElement('span');
  colour.style.background = structure.isEmpty ? 'transparent' : `rgb(${structure.colour})`;
  colour.style.borderColor = `rgb(${structure.colour})`;
  const count = document.createElement('small');
  count.textContent = structure.clicks.length ? String(structure.clicks.length) : '';
  item.append(colour, structure.name, count);
  item.onclick = choose;
  item.onkeydown = event => {
    if (event.key !== 'Enter' && event.key !== ' ') return;
    event.preventDefault(); // the list does not scroll
    choose();
  };
  return item;
}
