// Back from the provider: poll the balance for a while, then leave it to the person.
import { clearFlow, readFlow, total } from './flow.js';

const POLL_MS = 3000;
const POLLS = 6;

export class TopupReturn {
	#flow = null;
	#timer;
	#polls = 0;
	#load;
	#say;

	/** `load` resolves to the balance, or to null; `say` is told "checking", "success" or "pending". */
	constructor(load, say) {
		this.#load = load;
		this.#say = say;
	}

	start(balance) {
		this.#flow = readFlow();
		if (!this.#flow || this.#settled(balance)) return;
		this.#say('checking');
		this.#wait();
	}

	async refresh() {
		this.#settled(await this.#load());
	}

	stop() {
		clearTimeout(this.#timer);
	}

	#wait() {
		this.#timer = setTimeout(async () => {
			this.#polls += 1;
			if (this.#settled(await this.#load())) return;
			if (this.#polls < POLLS) this.#wait();
			else this.#say('pending');
		}, POLL_MS);
	}

	#settled(balance) {
		if (!balance || total(balance) <= this.#flow.previous_total_kopeks) return false;
		this.stop();
		clearFlow();
		this.#say('success');
		return true;
	}
}
