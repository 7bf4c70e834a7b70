// What this page asks of its server besides the Direct Line API: a token, a cut, and how the line to the bot stands.
//
// Only the conversation's id is kept in the browser. With it the server gives a new token for the old conversation, so
// a page that comes back after a reload, or after a day, finds its history.

const KEPT = 'landline-demo-conversation';

export const kept = {
  get: () => localStorage.getItem(KEPT) ?? undefined,
  set: conversationId => localStorage.setItem(KEPT, conversationId),
  forget: () => localStorage.removeItem(KEPT)
};

export const askForToken = conversationId => request('demo/token', { conversationId });

// At once, as the server knows it; or, if the bot is to be asked, when it has answered.
export const askForBot = (ask = false) => request('demo/bot', { ask });

export const askForCut = conversationId => request('demo/cut', { conversationId });

async function request(path, body) {
  const answer = await fetch(path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body)
  });
  if (!answer.ok) {
    throw new Error(`${path} answered ${answer.status}`);
  }
  return answer.json();
}
