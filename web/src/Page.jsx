import { useEffect, useState } from 'react';

import { Chat } from './Chat.jsx';
import { openConversation } from './conversation.js';
import { Line } from './line.js';
import { LinePanel } from './LinePanel.jsx';

const PAUSE_MS = 2000;

export function Page() {
  const [conversation, failure] = useConversation();
  return (
    <div className="page">
      <header className="title">
        <h1>Landline</h1>
        <p>Cut the line. Nothing gets lost.</p>
      </header>
      {conversation ? (
        <>
          <LinePanel conversation={conversation} />
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

// One line for as long as the page lives; what runs on it may have to be replaced.
function useConversation() {
  const [conversation, setConversation] = useState();
  const [failure, setFailure] = useState();
  useEffect(() => {
    const line = new Line();
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
  }, []);
  return [conversation, failure];
}
