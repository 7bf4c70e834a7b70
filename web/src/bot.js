// The line from the server to the bot, as the server sees it. The page looks while somebody looks at the page.

import { askForBot } from './demo.js';

const LOOK_MS = 1000;

export class Bot {
  #seen; // what the server says: { endpoint, own, standing: { state, word, help, guide } }
  #listeners = new Set();

  subscribe = listener => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  get = () => this.#seen;

  // Asks the bot now and whenever somebody comes back to the page, and looks in between. Answers how to stop.
  watch() {
    let timer;
    let stopped = false;
    const look = async ask => {
      clearTimeout(timer);
      if (!document.hidden) {
        // A server that does not answer is seen by the other line.
        await askForBot(ask).then(this.#update, () => {});
      }
      if (!stopped) {
        clearTimeout(timer);
        timer = setTimeout(look, LOOK_MS);
      }
    };
    const back = () => look(true);
    look(false);
    look(true);
    window.addEventListener('focus', back);
    return () => {
      stopped = true;
      clearTimeout(timer);
      window.removeEventListener('focus', back);
    };
  }

  #update = seen => {
    if (JSON.stringify(seen) !== JSON.stringify(this.#seen)) {
      this.#seen = seen;
      for (const listener of this.#listeners) {
        listener();
      }
    }
  };
}
