/** The element of the page with this id. */
export const element = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
