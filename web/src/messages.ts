// What the page tells: a line about the moment, and notes that stay until they are dealt with.
import { Refused } from './api';
import { element } from './page_element';

/** Of each kind there is one note at most. */
export type NoteKind = 'save' | 'conflict' | 'unreadable' | 'graphics' | 'sign-in';

/** What can be done about a note. */
export interface Remedy {
  text: string;
  act: () => void;
}

const notes = new Map<NoteKind, HTMLElement>();

export function tell(text: string, kind: 'plain' | 'busy' | 'fault' = 'plain'): void {
  const told = element('told');
  told.textContent = text;
  told.className = kind;
}

/** Tell a fault; whoever is no longer signed in can sign in elsewhere, and loses nothing here. */
export function tellFault(error: unknown): void {
  tell((error as Error).message, 'fault');
  if (isSignedOut(error)) keep('sign-in', [signIn(), ', then go on here.']);
}

export function isSignedOut(error: unknown): boolean {
  return error instanceof Refused && error.status === 401;
}

/** To be followed by what to do then. */
export function signIn(): HTMLElement {
  const link = document.createElement('a');
  link.href = 'login';
  link.target = '_blank';
  link.textContent = 'Sign in in another tab';
  return link;
}

/** Show a note, in the place of an earlier one of its kind. */
export function keep(kind: NoteKind, text: (string | HTMLElement)[], remedies: Remedy[] = [], isLasting = false): void {
  drop(kind);
  const note = document.createElement('div');
  note.setAttribute('role', 'alert');
  const words = document.createElement('span');
  words.append(...text);
  note.append(words, ...remedies.map(({ text, act }) => button(text, act)));
  if (!isLasting) note.append(button('Dismiss', () => drop(kind)));
  element('notes').append(note);
  notes.set(kind, note);
}

export function drop(...kinds: NoteKind[]): void {
  for (const kind of kinds) {
    notes.get(kind)?.remove();
    notes.delete(kind);
  }
}

function button(text: string, act: () => void): HTMLButtonElement {
  const made = document.createElement('button');
  made.textContent = text;
  made.onclick = act;
  return made;
}
