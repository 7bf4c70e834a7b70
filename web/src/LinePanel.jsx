import { useEffect, useState, useSyncExternalStore } from 'react';

import { Drawing } from './Drawing.jsx';
import { kept } from './demo.js';

const TIMES = 3;
const WIDE = matchMedia('(min-width: 56rem)');

export function LinePanel({ conversation, bot }) {
  const { line } = conversation;
  const seen = useSyncExternalStore(line.subscribe, line.get);
  const wide = useWide();
  return (
    <section className="panel" aria-label="The line">
      <Drawing state={seen.state} bot={bot} />
      <div className="states">
        <State seen={seen} />
        <BotState bot={bot} />
      </div>
      <Actions conversation={conversation} seen={seen} bot={bot} />
      {wide ? (
        <div className="record">
          <Facts seen={seen} />
          <Notes notes={seen.notes} />
        </div>
      ) : (
        <details className="record">
          <summary>
            <span>
              Position <code>{seen.watermark ?? '–'}</code>
            </span>
            <span>{count(seen.reconnects, 'reconnect')}</span>
          </summary>
          <Notes notes={seen.notes} />
        </details>
      )}
    </section>
  );
}

function State({ seen: { state, backAt, waiting, watermark } }) {
  const seconds = useSecondsUntil(state === 'cut' ? backAt : undefined);
  const [said, more] = {
    connecting: ['Calling.', 'The line is being opened.'],
    open: ['The line is open.', 'What is said arrives at once.'],
    cut: [
      'The line is cut.',
      seconds > 0 ? `DirectLineJS comes back in ${seconds} s.` : 'DirectLineJS is on its way back.'
    ],
    returning: ['Coming back.', `Asking for what came after ${watermark ?? 'the beginning'}.`]
  }[state];
  return (
    <p className={`state ${state}`}>
      <strong role="status">{said}</strong>{' '}
      <span>
        {waiting && (
          <b className="waits" role="status">
            {waiting}{' '}
          </b>
        )}
        {more}
      </span>
    </p>
  );
}

// The bot of the demo shares the server's process: there is something to say of the visitor's own.
function BotState({ bot: { endpoint, own, standing } }) {
  if (!own && standing.state === 'connected') {
    return null;
  }
  return (
    <p className={`state bot ${standing.state}`}>
      <strong role="status">{own ? `Your bot: ${standing.word}.` : `The bot: ${standing.word}.`}</strong>{' '}
      <span className="help">
        {standing.state !== 'connected' && standing.help}{' '}
        {standing.guide && <a href={`guide/howto/${standing.guide}.html`}>How</a>}
      </span>
      <span className="endpoint">{endpoint}</span>
    </p>
  );
}

function Actions({ conversation, seen, bot }) {
  const [trouble, setTrouble] = useState();
  const open = seen.state === 'open';
  const attempt = async action => {
    setTrouble();
    try {
      await action();
    } catch (error) {
      setTrouble(`That did not work: ${error.message}`);
    }
  };
  const said = seen.said ?? 'Hello';
  // A button that is disabled for good reason keeps the focus: the next one is a key away.
  return (
    <div className="actions">
      <button
        type="button"
        className="primary"
        aria-disabled={!open}
        onClick={() => open && attempt(() => conversation.cut())}
      >
        Cut the line
      </button>
      {bot.own ? (
        <button type="button" onClick={() => attempt(() => conversation.say(said))}>
          Say <q>{said.length > 16 ? `${said.slice(0, 15)}…` : said}</q> {seen.said && 'again'}
        </button>
      ) : (
        <button type="button" onClick={() => attempt(() => conversation.speak(TIMES))}>
          Let the bot speak three times
        </button>
      )}
      {trouble && <p role="alert">{trouble}</p>}
    </div>
  );
}

function Facts({ seen }) {
  return (
    <dl className="facts">
      <div className="position">
        <dt>Position (watermark)</dt>
        <dd>{seen.watermark ?? '–'}</dd>
      </div>
      <div>
        <dt>Reconnects</dt>
        <dd>{seen.reconnects}</dd>
      </div>
      <div>
        <dt>Received</dt>
        <dd>{seen.received}</dd>
      </div>
    </dl>
  );
}

function Notes({ notes }) {
  return (
    <div className="notes">
      <h2>On the line</h2>
      <ol reversed tabIndex={0} aria-label="On the line, newest first">
        {notes.map(({ at, kind, number, text, times, watermark }) => (
          <li key={number} className={kind}>
            <time dateTime={at.toISOString()}>{at.toLocaleTimeString('en-GB')}</time>
            <span className="what">
              <span className="text">{text}</span>
              {watermark && (
                <span className="watermark">
                  {watermark}
                  {kind === 'replayed' && <em> replayed</em>}
                  {times > 1 && ` ${times} times`}
                </span>
              )}
            </span>
          </li>
        ))}
      </ol>
      <button type="button" className="link" onClick={startOver}>
        Start a new conversation
      </button>
    </div>
  );
}

function startOver() {
  kept.forget();
  location.reload();
}

function useSecondsUntil(moment) {
  const [, tick] = useState(0);
  useEffect(() => {
    if (moment === undefined) {
      return undefined;
    }
    const timer = setInterval(() => tick(ticks => ticks + 1), 250);
    return () => clearInterval(timer);
  }, [moment]);
  return moment === undefined ? 0 : Math.ceil((moment - Date.now()) / 1000);
}

function useWide() {
  return useSyncExternalStore(
    changed => {
      WIDE.addEventListener('change', changed);
      return () => WIDE.removeEventListener('change', changed);
    },
    () => WIDE.matches
  );
}

const count = (number, noun) => `${number} ${noun}${number === 1 ? '' : 's'}`;
