import { defineConfig } from 'vitest/config';
import { pastedPage } from './pasted-page.js';

export default defineConfig({
	plugins: [pastedPage()],
	resolve: { conditions: ['browser'] }, // else Svelte is the server's
	test: {
		environment: 'jsdom',
		mockReset: true,
		testTimeout: 60_000, // clocks are the tests' own, and machines may be busy
		// Each thread would load jsdom anew, which takes longer than the tests.
		pool: 'threads',
		poolOptions: { threads: { singleThread: true } },
		server: { deps: { inline: ['svelte'] } }
	}
});
