// The start page: the server's state, brought up to date while it is looked at.
import './start.css';
import { Refused, type Status, status } from './api';

const REFRESH_MS = 2000;
const element = <T extends Element>(id: string) => document.getElementById(id) as unknown as T;

function describe(id: string, rows: Record<string, string>): void {
  element<HTMLDListElement>(id).replaceChildren(
    ...Object.entries(rows).flatMap(([term, text]) => {
      const dt = document.createElement('dt');
      const dd = document.createElement('dd');
      dt.textContent = term;
      dd.textContent = text;
      return [dt, dd];
    }),
  );
}

function scores(state: Status): Record<string, string> {
  if (!state.model.scores.length) return { scores: 'not known for these weights' };
  return Object.fromEntries(
    state.model.scores.map(({ data, clicks }) => [
      `Dice on ${data}`,
      Object.entries(clicks)
        .map(([count, dice]) => `${dice.toFixed(2)} after ${count}`)
        .join(', '),
    ]),
  );
}

function show(state: Status): void {
  const { model, studies, clicks, training } = state;
  describe('model', {
    name: model.name,
    'weights of': new Date(model.date).toLocaleDateString(undefined, { dateStyle: 'long' }),
    'computed by': model.devices.join('; '),
    ...scores(state),
  });
  const share = studies.total ? studies.done / studies.total : 0;
  element<HTMLElement>('bar').setAttribute('aria-valuenow', String(Math.round(share * 100)));
  element<HTMLElement>('bar').querySelector('span')!.style.width = `${share * 100}%`;
  element<HTMLElement>('studies').textContent = studies.total
    ? `${studies.done} done, ${studies.total - studies.done} left`
    : 'There are no studies here yet.';
  describe('clicks', {
    answered: String(clicks.answered),
    'takes (median)': clicks.median_s === null ? 'nobody has clicked yet' : `${Math.round(clicks.median_s * 1000)} ms`,
    now: `${clicks.running} computed, ${clicks.waiting} waiting`,
  });
  element<HTMLElement>('training').textContent = !training
    ? 'No training is running.'
    : `${training.is_running ? 'Running' : 'Finished'}: step ${training.step} of ${training.total_steps}. ${training.message}`;
  drawCurve(training?.dice ?? []);
  element<HTMLElement>('ohif').innerHTML = studies.is_dicomweb
    ? '<a href="/ohif/">OHIF</a>, in this browser'
    : '<b>OHIF</b>: for studies on a DICOMweb server (<code>make ohif</code> shows it)';
}

function drawCurve(points: [number, number][]): void {
  const curve = element<SVGElement>('curve');
  curve.toggleAttribute('hidden', points.length < 2);
  if (points.length < 2) return;
  const last = points[points.length - 1][0] || 1;
  const line = points.map(([step, dice]) => `${(step / last) * 296 + 2},${88 - dice * 86}`).join(' ');
  curve.innerHTML = `<polyline points="${line}" /><text x="296" y="12">${points[points.length - 1][1].toFixed(2)}</text>`;
}

async function refresh(): Promise<void> {
  try {
    show(await status());
    element<HTMLElement>('told').textContent = '';
  } catch (error) {
    const isRefused = error instanceof Refused; // it says itself what is missing
    const message = (error as Error).message;
    element<HTMLElement>('told').textContent = isRefused ? message : `The server does not answer. ${message}`;
  }
  setTimeout(() => void refresh(), REFRESH_MS);
}

element<HTMLElement>('address').textContent = new URL('.', location.href).href.replace(/\/$/, '');
void refresh();
