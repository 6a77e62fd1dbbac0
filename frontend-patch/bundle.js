// Joins what tsc has compiled into one plain script, for a page that loads no modules.
// node bundle.js [target]
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { format, resolveConfig } from 'prettier';

const HEADER = `// openwebui-billing-reconcile: the balance page asks after top-ups whose webhook is late or lost.
// Built from frontend-patch/ with "npm run build": the comments are there, and changes belong there.
`;

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

const compiled = await Promise.all(
	['build/reconcile-topup.js', 'build/loader.js'].map((path) => readFile(here(path), 'utf8'))
);
const code = compiled
	.join('\n')
	.replace(/^import .*\n/gm, '')
	.replace(/^export /gm, '');
const script = await format(`${HEADER}(() => {\n'use strict';\n\n${code}})();\n`, {
	...(await resolveConfig(here('bundle.js'))),
	parser: 'babel'
});

const target =
	process.argv[2] ?? here('../openwebui_billing_reconcile/web/static/reconcile-topup.js');
await mkdir(dirname(target), { recursive: true });
await writeFile(target, script);
