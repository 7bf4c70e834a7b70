import ReactWebChat, { createStore } from 'botframework-webchat';
import { memo, useEffect, useMemo, useRef } from 'react';

import { follow } from './follow.js';
import { deletes, places } from './store.js';
import typing from './typing.svg';

// Colours are those of page.css, so that light and dark are decided in one place.
const STYLE = {
  accent: 'var(--accent)',
  subtle: 'var(--quiet)',
  backgroundColor: 'transparent',
  primaryFont: 'inherit',
  fontSizeSmall: '0.8rem',
  rootHeight: '100%',
  rootWidth: '100%',
  paddingRegular: 12,
  paddingWide: 20,
  bubbleMaxWidth: 520,
  bubbleBackground: 'var(--bubble)',
  bubbleBorderColor: 'var(--bubble)',
  bubbleBorderRadius: 16,
  bubbleTextColor: 'var(--ink)',
  bubbleFromUserBackground: 'var(--accent)',
  bubbleFromUserBorderColor: 'var(--accent)',
  bubbleFromUserBorderRadius: 16,
  bubbleFromUserTextColor: 'var(--on-accent)',
  timestampColor: 'var(--quiet)',
  sendBoxBackground: 'var(--field)',
  sendBoxBorderTop: '1px solid var(--hairline)',
  sendBoxTextColor: 'var(--ink)',
  sendBoxPlaceholderColor: 'var(--quiet)',
  sendBoxButtonColor: 'var(--accent)',
  sendBoxButtonColorOnDisabled: 'var(--quiet)',
  sendBoxButtonColorOnFocus: 'var(--accent)',
  sendBoxButtonColorOnHover: 'var(--accent)',
  sendBoxButtonShadeColor: 'transparent',
  sendBoxButtonShadeColorOnHover: 'var(--bubble)',
  sendBoxButtonShadeColorOnFocus: 'transparent',
  sendBoxHeight: 56,
  sendBoxButtonKeyboardFocusIndicatorBorderColor: 'var(--accent)',
  transcriptVisualKeyboardIndicatorColor: 'var(--accent)',
  transcriptActivityVisualKeyboardIndicatorColor: 'var(--accent)',
  transcriptTerminatorBackgroundColor: 'var(--quiet)',
  transcriptTerminatorColor: 'var(--surface)',
  // Whatever is below the fold, there is a way to it.
  scrollToEndButtonBehavior: 'any',
  cardEmphasisBackgroundColor: 'var(--field)',
  cardPushButtonBackgroundColor: 'var(--accent)',
  cardPushButtonTextColor: 'var(--on-accent)',
  suggestedActionLayout: 'flow',
  suggestedActionBackgroundColor: 'transparent',
  suggestedActionBackgroundColorOnActive: 'var(--bubble)',
  suggestedActionBackgroundColorOnFocus: 'var(--bubble)',
  suggestedActionBackgroundColorOnHover: 'var(--bubble)',
  suggestedActionBorderColor: 'var(--hairline)',
  suggestedActionBorderRadius: 10,
  suggestedActionBorderWidth: 1,
  suggestedActionTextColor: 'var(--accent)',
  toastErrorBackgroundColor: 'var(--bubble)',
  toastErrorColor: 'var(--cut)',
  toastInfoBackgroundColor: 'var(--bubble)',
  toastInfoColor: 'var(--ink)',
  toastWarnBackgroundColor: 'var(--bubble)',
  toastWarnColor: 'var(--away)',
  typingAnimationBackgroundImage: `url("${typing}")`
};

export const Chat = memo(({ conversation }) => {
  const store = useMemo(() => createStore({}, deletes, places), []);
  const chat = useRef();
  useEffect(() => follow(chat.current), []);
  return (
    <div className="follows" ref={chat}>
      <ReactWebChat directLine={conversation.directLine} locale="en-US" store={store} styleOptions={STYLE} />
    </div>
  );
});
