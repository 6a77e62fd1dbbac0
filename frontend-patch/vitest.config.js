import { defineConfig } from 'vitest/config';
import { pastedPage } from './pasted-page.js';

export default defineConfig({
	plugins: [pastedPage()],
	resolve: { conditions: ['browser'] }, // else Svelte is the server's
	test: { environment: 'jsdom', mockReset: true, server: { deps: { inline: ['svelte'] } } }
});
