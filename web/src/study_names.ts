// What the studies are called in the list.
export interface ImageInfo {
  PatientID?: string;
  SeriesDescription?: string;
  StudyDate?: string;
}

const SHORTEST_END = 6;

/** A name for each id; no two are alike. */
export function studyNames(infos: Map<string, ImageInfo>): Map<string, string> {
  const names = new Map([...infos].map(([id, info]) => [id, nameOf(id, info)]));
  const idsOf = new Map<string, string[]>();
  for (const [id, name] of names) idsOf.set(name, [...(idsOf.get(name) ?? []), id]);
  for (const [name, ids] of idsOf)
    if (ids.length > 1) for (const id of ids) names.set(id, `${name} ...${endOf(id, ids)}`);
  return names;
}

function nameOf(id: string, { PatientID, SeriesDescription, StudyDate }: ImageInfo): string {
  if (!SeriesDescription) return id;
  const date = StudyDate?.replace(/^(\d{4})(\d\d)(\d\d)$/, '$1-$2-$3');
  return `${PatientID}: ${SeriesDescription}${date ? `, ${date}` : ''}`;
}

/** So much of the end of `id` as none of the others has. */
function endOf(id: string, ids: string[]): string {
  let length = SHORTEST_END;
  while (length < id.length && ids.some(other => other !== id && other.endsWith(id.slice(-length)))) length++;
  return id.slice(-length);
}
