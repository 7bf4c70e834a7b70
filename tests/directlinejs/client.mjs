// Pages with the published DirectLineJS in them, for the tests of this directory.
//
// Commands come in as JSON lines on stdin, what happens goes out as JSON lines on stdout; tests/support/directlinejs.py
// is the other end. Each page is a jsdom window with an origin of its own, so CORS preflights are real. It runs the
// bundle that browsers load, `dist/directline.js`, as npm delivers it. Three things are put around the bundle:
//
// - The page's clock runs `scale` times as fast. The waits of DirectLineJS are constants (3 to 15 s before it
//   reconnects, 20 s between retries, 15 min between refreshes), and a test cannot wait for them. Only the timers and
//   the `Date` of the page are scaled; jsdom's own network time-outs run on real time, so a busy machine fails nothing.
// - Its chance can be fixed (`luck`), where a test is about one length of those waits.
// - The page's `WebSocket` reports what passes, and changes nothing: DirectLineJS does not drop repeats and does not
//   show watermarks, and the specification promises something about each single connection.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { Script } from 'node:vm';
import { JSDOM, VirtualConsole } from 'jsdom';

const locate = createRequire(import.meta.url).resolve;
const bundles = new Map();
const statusNames = ['Uninitialized', 'Connecting', 'Online', 'ExpiredToken', 'FailedToConnect', 'Ended'];

function bundleOf(version) {
  if (!bundles.has(version)) {
    const name = version ? `botframework-directlinejs-${version}` : 'botframework-directlinejs';
    const path = locate(`${name}/dist/directline.js`);
    bundles.set(version, new Script(readFileSync(path, 'utf8'), { filename: path }));
  }
  return bundles.get(version);
}

function hurry(window, scale) {
  const { setTimeout, setInterval, Date } = window;
  const began = Date.now();
  window.setTimeout = (callback, delay, ...rest) => setTimeout(callback, delay / scale, ...rest);
  window.setInterval = (callback, delay, ...rest) => setInterval(callback, delay / scale, ...rest);
  window.Date = class extends Date {
    constructor(...parts) {
      super(...(parts.length ? parts : [window.Date.now()]));
    }

    static now() {
      return Math.floor(began + (Date.now() - began) * scale);
    }
  };
}

function watchSockets(window, report) {
  let opened = 0;
  window.WebSocket = class extends window.WebSocket {
    constructor(...rest) {
      super(...rest);
      const socket = opened++;
      report('socket', { socket, state: 'connecting', url: rest[0] });
      this.addEventListener('open', () => report('socket', { socket, state: 'open' }));
      this.addEventListener('message', ({ data }) => report('frame', { socket, data }));
      this.addEventListener('close', ({ code, reason }) => report('socket', { socket, state: 'closed', code, reason }));
    }
  };
}

class Page {
  #report;
  #dom;
  #directLine;

  constructor(report, { origin, scale, luck, version }) {
    this.#report = report;
    const virtualConsole = new VirtualConsole();
    for (const level of ['warn', 'error', 'jsdomError']) {
      virtualConsole.on(level, said => report('console', { level, message: String(said?.message ?? said) }));
    }
    this.#dom = new JSDOM('', { url: origin, runScripts: 'outside-only', virtualConsole });
    hurry(this.#dom.window, scale);
    if (luck !== null) {
      this.#dom.window.Math.random = () => luck;
    }
    watchSockets(this.#dom.window, report);
    bundleOf(version).runInContext(this.#dom.getInternalVMContext());
  }

  start({ options }) {
    const report = this.#report;
    const directLine = new this.#dom.window.DirectLine.DirectLine(options);
    this.#directLine = directLine;
    directLine.connectionStatus$.subscribe(status =>
      report('status', {
        status: statusNames[status],
        conversationId: directLine.conversationId,
        token: directLine.token
      })
    );
    directLine.activity$.subscribe(
      activity => report('activity', { activity, watermark: directLine.watermark }),
      error => report('stopped', { message: String(error?.message ?? error) }),
      () => report('stopped', { message: 'completed' })
    );
  }

  post({ post, activity }) {
    this.#directLine.postActivity(activity).subscribe(
      id => this.#report('posted', { post, id }),
      error => this.#report('posted', { post, error: { status: error?.status, message: String(error?.message) } })
    );
  }

  reconnect({ conversation }) {
    this.#directLine.reconnect(conversation);
  }

  end() {
    this.#directLine.end();
  }

  close() {
    this.#dom.window.close();
  }
}

const pages = new Map();

function say(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

for await (const line of createInterface({ input: process.stdin })) {
  const { page, verb, ...details } = JSON.parse(line);
  try {
    if (verb === 'open') {
      pages.set(page, new Page((event, facts) => say({ page, event, ...facts }), details));
    } else {
      pages.get(page)[verb](details);
    }
  } catch (error) {
    say({ page, event: 'failed', message: error.stack });
  }
}

process.exit(0);
