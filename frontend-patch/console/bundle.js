// Joins the console's page, style and script into one file that loads nothing else.
// node console/bundle.js [target]
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const read = (path) => readFile(here(path), 'utf8');

const HEADER = `<!--
openwebui-billing-reconcile: the administrators' console.
Built from frontend-patch/console/ with "npm run build:console": changes belong there.
Contains Preact:

${(await read('../node_modules/preact/LICENSE')).trim()}
-->
`;

const bundled = await build({
	absWorkingDir: here('.'),
	entryPoints: ['main.tsx'],
	bundle: true,
	charset: 'utf8', // the page says so
	format: 'iife',
	legalComments: 'none', // the header has them
	target: 'es2020',
	tsconfig: 'tsconfig.json',
	write: false
});
const parts = {
	style: `<style>\n${await read('style.css')}</style>`,
	script: `<script>\n${bundled.outputFiles[0].text}</script>`
};
const page = (await read('index.html')).replace(
	/<!-- (style|script) -->/g,
	(_, name) => parts[name]
);

const target = process.argv[2] ?? here('../../openwebui_billing_reconcile/web/static/console.html');
await writeFile(
	target,
	page.replace('<!doctype html>\n', (doctype) => doctype + HEADER)
);
