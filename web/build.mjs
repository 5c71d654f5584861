// Bundles the pages into dist/, which the server sends as they are. Nothing in them loads from elsewhere.
import { build } from 'esbuild';
import { copyFileSync, mkdirSync, renameSync, rmSync } from 'node:fs';

const partial = 'dist.part'; // dist/ is whole or not there
rmSync(partial, { recursive: true, force: true });
mkdirSync(partial);
await build({
  entryPoints: ['src/start.ts', 'src/try.ts', 'src/api_docs.ts'],
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2022',
  outdir: partial,
  loader: { '.css': 'css' },
  logLevel: 'warning',
});
for (const page of ['index', 'try', 'docs']) copyFileSync(`src/${page}.html`, `${partial}/${page}.html`);
rmSync('dist', { recursive: true, force: true });
renameSync(partial, 'dist');
