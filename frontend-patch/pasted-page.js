// Compiles balance-page.svelte with the code of README.md in the places that README.md names.
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { compile } from 'svelte/compiler';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

const CONSTANTS = '\0constants';
const MODULES = {
	'$lib/apis/billing/reconcile-topup': here('reconcile-topup.ts'),
	'$lib/constants': CONSTANTS
};

const codeBelow = (heading, readme) => {
	const section = readme.split(`\n### ${heading}\n`)[1]?.split('\n#')[0];
	const code = section?.match(/```ts\n(.*?)```/s)?.[1];
	if (!code) throw new Error(`README.md has no code below "${heading}"`);
	return code;
};

/** A plugin for Vite. */
export const pastedPage = () => ({
	name: 'pasted-page',
	enforce: 'pre',
	resolveId: (id) => MODULES[id],
	load(id) {
		return id === CONSTANTS ? "export const WEBUI_API_BASE_URL = '/chat/api/v1';" : undefined;
	},
	async transform(page, id) {
		if (!id.endsWith('.svelte')) return undefined;
		const readme = await readFile(here('README.md'), 'utf8');
		const pasted = page.replace(/\/\/ README: (.*)/g, (_, heading) => codeBelow(heading, readme));
		return compile(pasted, { filename: id, dev: true }).js;
	}
});
