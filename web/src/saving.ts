// Saving what is drawn, and what becomes of it where that is not possible.
import { annotator } from './annotator';
import { Refused, labelInfo, save } from './api';
import type { Drawing } from './drawing';
import { drop, isSignedOut, keep, signIn, tell } from './messages';

const CONFLICT = 409;

/** What saving needs of the page. */
export interface SavingPage {
  /** the drawing that is shown */
  shown: () => Drawing;
  /** what can be pressed may be another now */
  refresh: () => void;
  listStudies: () => Promise<unknown>;
  /** show what the server has of a study, in the place of what is drawn */
  open: (study: string) => void;
}

export class Saving {
  /** There is one save at a time. */
  isRunning = false;

  constructor(private readonly page: SavingPage) {}

  async save(drawing: Drawing): Promise<void> {
    if (this.isRunning || !drawing.canSave) return;
    const { label, stored } = drawing.toSave();
    this.isRunning = true;
    drop('save', 'conflict');
    tell('Saving ...', 'busy');
    this.page.refresh();
    try {
      const { version, notice } = await save(drawing.study.id, label, annotator);
      stored(version);
      drop('sign-in');
      const names = label.names.map(one => one.name).join(', ') || 'nothing is labelled';
      if (this.isShown(drawing)) tell(`Saved: ${names}.${notice && ` ${notice}`}`);
      void this.page.listStudies().catch(() => undefined); // saved it is in any case, and the next save need not wait
    } catch (error) {
      await this.tellWhyNot(drawing, error);
    } finally {
      this.isRunning = false;
      this.page.refresh();
    }
  }

  /** The note stays while other studies are looked at, until it is dismissed or something is saved. */
  private async tellWhyNot(drawing: Drawing, error: unknown): Promise<void> {
    const lead = `What was drawn on ${drawing.study.name} is not saved`;
    const isOutdated = error instanceof Refused && error.status === CONFLICT;
    if (isOutdated && (await this.tellOfTheirs(drawing, lead).catch(() => false))) return;
    if (this.isShown(drawing)) tell('Not saved.', 'fault');
    if (isSignedOut(error)) keep('save', [`${lead}. `, signIn(), ', then save again.']);
    else keep('save', [`${lead}. ${(error as Error).message}`]);
  }

  /** Somebody saved another version since: theirs or this one. Returns false where that is not why. */
  private async tellOfTheirs(drawing: Drawing, lead: string): Promise<boolean> {
    const theirs = await labelInfo(drawing.study.id);
    const version = theirs?.version ?? 0;
    if (version === drawing.basedOn) return false; // the image was replaced, and the server says so
    const by = theirs?.savedBy || 'Somebody';
    const reason = version
      ? `${by} saved version ${version} of its label since you opened it.`
      : `Somebody ${theirs ? 'stored' : 'removed'} its label since you opened it.`;
    if (!this.isShown(drawing)) {
      keep('save', [`${lead}. ${reason}`]); // it is gone: there is no choice any more
      return true;
    }
    tell('Not saved.', 'fault');
    const saveOver = () => {
      if (!this.isShown(drawing) || this.isRunning) return;
      if (!confirm(`${reason} Save yours over it?${version ? ' The history keeps both.' : ''}`)) return;
      drawing.replaces(version);
      void this.save(drawing);
    };
    keep('conflict', [`${lead}: it is still here. ${reason} `], [
      { text: 'Open theirs', act: () => this.page.open(drawing.study.id) },
      { text: 'Save over it', act: saveOver },
    ]);
    return true;
  }

  private isShown(drawing: Drawing): boolean {
    return this.page.shown() === drawing;
  }
}
