/** Does one thing after the other, in the order they were asked for; one that fails does not hold up the next. */
export class Turns {
  private last: Promise<unknown> = Promise.resolve();

  add<T>(use: () => Promise<T>): Promise<T> {
    const used = this.last.then(use);
    this.last = used.catch(() => undefined);
    return used;
  }
}
