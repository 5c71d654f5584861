// Who clicks and who saves, as far as this browser can tell.

/** Two tabs of one person click apart from each other; what they save is by the same one. */
export const tab = crypto.randomUUID?.() ?? randomHex(4); // no randomUUID on plain http of another machine
export const annotator = known();

function randomHex(count: number): string {
  const numbers = crypto.getRandomValues(new Uint32Array(count));
  return Array.from(numbers, one => one.toString(16).padStart(8, '0')).join('');
}

function known(): string {
  const key = 'deepgrow3d-page';
  const made = `page-${randomHex(1)}`;
  try {
    const name = localStorage.getItem(key) ?? made;
    localStorage.setItem(key, name);
    return name;
  } catch {
    return made; // a browser that keeps nothing
  }
}
