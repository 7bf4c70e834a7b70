// One conversation of this page, with the published DirectLineJS at one end and our server at the other.

import { ConnectionStatus, DirectLine } from 'botframework-directlinejs';

import { askForCut, askForToken, kept } from './demo.js';

const DOMAIN = new URL('v3/directline', document.baseURI).href;

// DirectLineJS does not come back from these, and Web Chat ends it. A new one, with a new token, goes on.
const OVER = new Map([
  [ConnectionStatus.ExpiredToken, 'The token has expired'],
  [ConnectionStatus.FailedToConnect, 'DirectLineJS has given up'],
  [ConnectionStatus.Ended, 'The conversation is gone']
]);

let opened = 0;

export async function openConversation(line, over) {
  return new Conversation(await askForToken(kept.get()), line, over);
}

export class Conversation {
  #over;

  // `over` is called once, when another conversation should take the place of this one.
  constructor({ conversationId, known, token, userId }, line, over) {
    this.number = ++opened;
    this.id = conversationId;
    this.userId = userId;
    this.line = line;
    this.#over = over;
    // With an id DirectLineJS goes on with the conversation, and its empty watermark asks for all of it.
    this.directLine = new DirectLine({
      domain: DOMAIN,
      token,
      ...(known ? { conversationId } : {}),
      ...line.services(known)
    });
    this.directLine.connectionStatus$.subscribe(status => this.#changed(status));
  }

  async cut() {
    this.line.cutAsked();
    await askForCut(this.id);
  }

  // Which the bot of the demo knows.
  async speak(times) {
    await this.#post({ type: 'event', name: 'demo/speak', value: times });
    this.line.spoken(times);
  }

  async say(text) {
    await this.#post({ type: 'message', text });
    this.line.taken();
  }

  // An ordinary activity, posted over HTTP, which works while the stream is down. The answer comes when the bot is done.
  async #post(activity) {
    const asked = { ...activity, from: { id: this.userId } };
    const id = await new Promise((resolve, reject) => this.directLine.postActivity(asked).subscribe(resolve, reject));
    if (id === 'retry') {
      throw new Error('the bot did not take it');
    }
  }

  #changed(status) {
    if (status === ConnectionStatus.Online) {
      kept.set(this.id);
    } else if (OVER.has(status) && this.#over) {
      this.line.over(OVER.get(status));
      this.#over();
      this.#over = undefined;
    }
  }
}
