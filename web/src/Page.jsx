import { useEffect, useState, useSyncExternalStore } from 'react';

import { Bot } from './bot.js';
import { Chat } from './Chat.jsx';
import { openConversation } from './conversation.js';
import { Line } from './line.js';
import { LinePanel } from './LinePanel.jsx';

const FIRST_STEPS = 'guide/howto/first-steps.html';
const PAUSE_MS = 2000;

export function Page() {
  const line = useState(() => new Line())[0];
  const bot = useBot(line);
  const [conversation, failure] = useConversation(line);
  return (
    <div className="page">
      <header className="title">
        <h1>Landline</h1>
        <p className="what">Your own Direct Line server, between Web Chat and a bot. Cut the line: nothing gets lost.</p>
        <Next bot={bot} />
      </header>
      {conversation && bot ? (
        <>
          <LinePanel conversation={conversation} bot={bot} />
          <main className="chat" aria-label="Conversation">
            {/* A Web Chat of its own for each DirectLineJS, which brings the whole history with it. */}
            <Chat key={conversation.number} conversation={conversation} />
          </main>
        </>
      ) : (
        <p className="waiting" role="status">
          {failure ? `The server does not answer (${failure}). Trying again.` : 'Calling …'}
        </p>
      )}
    </div>
  );
}

function Next({ bot }) {
  return (
    <p className="next">
      {bot && (
        <span className="hint">
          {bot.own ? (
            'Say something, cut the line, and say more: the answers wait for you. '
          ) : (
            <>
              With a bot of yours: <code>landline try 3978</code>{' '}
            </>
          )}
        </span>
      )}
      <a href={FIRST_STEPS}>First steps</a>
    </p>
  );
}

function useBot(line) {
  const bot = useState(() => new Bot())[0];
  useEffect(() => {
    let before;
    const unsubscribe = bot.subscribe(() => {
      const { standing } = bot.get();
      // Not that it is well from the beginning.
      if (standing.word !== before && (before !== undefined || standing.state === 'trouble')) {
        line.botStands(standing);
      }
      before = standing.word;
    });
    const stop = bot.watch();
    return () => {
      stop();
      unsubscribe();
    };
  }, [bot, line]);
  return useSyncExternalStore(bot.subscribe, bot.get);
}

// One line for as long as the page lives; what runs on it may have to be replaced.
function useConversation(line) {
  const [conversation, setConversation] = useState();
  const [failure, setFailure] = useState();
  useEffect(() => {
    let timer;
    const again = () => {
      timer = setTimeout(open, PAUSE_MS);
    };
    const open = () =>
      openConversation(line, again).then(setConversation, error => {
        setFailure(error.message);
        again();
      });
    open();
    return () => clearTimeout(timer);
  }, [line]);
  return [conversation, failure];
}
