// Two things that Web Chat 4.18 does not do by itself, as middleware of its store: createStore({}, deletes, places).
// Nothing here is about this page; a page with a Web Chat of its own can use the file as it is.

const INCOMING = 'DIRECT_LINE/INCOMING_ACTIVITY';

// What a bot takes back leaves the transcript. The server tells of it by a `messageDelete` with the id of the message.
// Web Chat has no notion of that: it would put it in the message's place and find no way to draw it. So it never gets
// there, and the message goes by Web Chat's own action.
export function deletes({ dispatch, getState }) {
  const gone = new Set();
  return next => action => {
    if (action.type !== INCOMING) {
      return next(action);
    }
    const { id, type } = action.payload.activity;
    if (type === 'messageDelete') {
      gone.add(id);
      // Its buttons go with it; those of a message that is the last one now come back by themselves.
      dispatch({ type: 'WEB_CHAT/CLEAR_SUGGESTED_ACTIONS' });
      for (const activityID of withPieces(id, getState().activities)) {
        dispatch({ type: 'DIRECT_LINE/DELETE_ACTIVITY', payload: { activityID } });
      }
      return undefined;
    }
    // Web Chat holds a message back for up to 5 s while it waits for what that answers. It may be gone by then.
    return gone.has(id) ? undefined : next(action);
  };
}

// A streamed answer is still there in the pieces that it grew by, and the last of them would take its place.
function withPieces(id, activities) {
  const streamId = activities.find(each => each.id === id)?.channelData.streamId;
  const pieces = activities.filter(each => streamId && (each.id === streamId || each.channelData.streamId === streamId));
  return new Set([id, ...pieces.map(each => each.id)]);
}

// A streamed answer grows in one place. Web Chat takes its first piece for a part of whatever was typed or streamed
// before, and draws the answer up there, unless it is told the place: the server's times are in the right order. And it
// knows the pieces by the id of the first. Whoever comes in the middle has missed that, and would see each piece on its
// own: the first that comes stands for it.
export function places({ getState }) {
  return next => action => {
    const activity = action.type === INCOMING ? action.payload.activity : undefined;
    if (activity?.type !== 'typing') {
      return next(action);
    }
    const channelData = { ...activity.channelData, 'webchat:sequence-id': Date.parse(activity.timestamp) };
    const { streamId } = channelData;
    const id = streamId && getState().activities.every(each => each.id !== streamId) ? streamId : activity.id;
    return next({ ...action, payload: { ...action.payload, activity: { ...activity, id, channelData } } });
  };
}
