// What can be seen of the line from this page: sockets that open and break, and the watermarks that come through them.
//
// It watches and changes nothing. DirectLineJS takes its WebSocket and its randomness from its options; both are passed
// through here, so that the page can tell when a socket broke, when DirectLineJS will be back, and where it goes on.

const NOTES_KEPT = 60;

// DirectLineJS waits this long before it reconnects: `getRetryDelay`, with a random number from 0 to 1.
const retryDelay = random => Math.floor(3000 + random * 12000);

export class Line {
  #seen = {
    state: 'connecting', // then open, cut, returning
    backAt: undefined,
    reconnects: 0,
    received: 0,
    watermark: undefined,
    unheard: 0, // how often the bot was made to speak while the line was cut
    waiting: undefined, // what waits for the line, in words
    said: undefined, // what was said last by whoever uses the page
    notes: []
  };
  #listeners = new Set();
  #opened = 0;
  #delay;
  #cutAsked = false;
  #resumed = false; // whether there was something to come back to
  #user = 0; // the DirectLineJS whose sockets count

  subscribe = listener => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  get = () => this.#seen;

  // What a DirectLineJS is given, which may go on with an older conversation. From then on only its sockets count.
  services(resumed) {
    const line = this;
    const user = ++this.#user;
    this.#delay = undefined;
    this.#resumed ||= resumed;
    return {
      WebSocket: class extends WebSocket {
        constructor(url) {
          super(url);
          line.#watch(this, user);
        }
      },
      random: () => {
        const random = Math.random();
        line.#delay = retryDelay(random);
        return random;
      }
    };
  }

  // What the page reports.

  cutAsked() {
    this.#cutAsked = true;
  }

  spoken(times) {
    if (this.#seen.state !== 'open') {
      const text = `The bot has spoken ${times} times, unheard`;
      const unheard = this.#seen.unheard + times;
      this.#update({ unheard, waiting: `${unheard} messages of the bot are waiting.` }, { kind: 'unheard', text });
    }
  }

  taken() {
    if (this.#seen.state !== 'open') {
      const waiting = 'The bot has it; the answer is waiting.';
      this.#update({ waiting }, { kind: 'unheard', text: 'The bot has been told, unheard' });
    }
  }

  botStands({ word, state }) {
    this.#update({}, { kind: state === 'connected' ? 'opened' : 'cut', text: `The bot: ${word}` });
  }

  over(why) {
    this.#user++;
    this.#update({ state: 'connecting', backAt: undefined }, { kind: 'cut', text: why });
  }

  // What the sockets report.

  #watch(socket, user) {
    const on = (event, react) => socket.addEventListener(event, facts => user === this.#user && react(facts));
    const position = new URL(socket.url).searchParams.get('watermark');
    let openedAt;
    if (user === this.#user) {
      this.#update({ state: this.#opened ? 'returning' : 'connecting', backAt: undefined });
    }
    on('open', () => {
      openedAt = Date.now();
      this.#open(position);
    });
    on('message', ({ data }) => data && this.#receive(JSON.parse(data), openedAt));
    on('close', ({ code }) => this.#broken(code, user));
  }

  #open(position) {
    const again = this.#opened++ > 0;
    this.#resumed ||= again;
    const where = position ?? 'the beginning';
    this.#update(
      {
        state: 'open',
        reconnects: this.#opened - 1,
        watermark: position ?? this.#seen.watermark,
        unheard: 0,
        waiting: undefined
      },
      { kind: 'opened', text: again ? `Open again, goes on at ${where}` : `Open, begins at ${where}` }
    );
  }

  #receive({ activities, watermark }, openedAt) {
    for (const activity of activities) {
      // A greeting may be older than the stream, but nobody was away when it was said.
      const replayed = this.#resumed && Date.parse(activity.timestamp) < openedAt;
      this.#update(
        { received: this.#seen.received + 1, watermark, said: isSaid(activity) ? activity.text : this.#seen.said },
        {
          kind: replayed ? 'replayed' : 'live',
          watermark,
          text: summary(activity),
          passing: activity.type === 'typing'
        }
      );
    }
  }

  #broken(code, user) {
    // DirectLineJS hears of this after us, and draws its delay then.
    setTimeout(() => {
      if (user !== this.#user) {
        return;
      }
      const backAt = this.#delay === undefined ? undefined : Date.now() + this.#delay;
      const text = this.#cutAsked ? 'Cut' : `Closed with ${code}`;
      this.#cutAsked = false;
      this.#update({ state: 'cut', backAt }, { kind: 'cut', text });
    });
  }

  #update(changes, note) {
    this.#seen = { ...this.#seen, ...changes };
    if (note) {
      this.#note(note);
    }
    for (const listener of this.#listeners) {
      listener();
    }
  }

  #note(note) {
    const [last, ...earlier] = this.#seen.notes;
    if (note.passing && last?.passing && note.text === last.text) {
      // A streamed answer comes in a hundred pieces, which are one thing that happens.
      this.#seen.notes = [{ ...last, ...note, times: last.times + 1 }, ...earlier];
    } else {
      const numbered = { ...note, number: (last?.number ?? 0) + 1, times: 1, at: new Date() };
      this.#seen.notes = [numbered, ...this.#seen.notes].slice(0, NOTES_KEPT);
    }
  }
}

const isOfBot = ({ from }) => from.role === 'bot';
const isSaid = activity => activity.type === 'message' && activity.text && !isOfBot(activity);

function summary(activity) {
  return `${isOfBot(activity) ? 'Bot' : 'You'}: ${gist(activity)}`;
}

function gist({ attachments, name, text, type }) {
  if (type === 'messageDelete') {
    return '(took a message back)';
  }
  if (type !== 'message') {
    return `(${type}${name ? ` ${name}` : ''})`;
  }
  return text || (attachments ?? []).map(each => `(${each.name ?? each.content?.title ?? each.contentType})`).join(' ');
}
