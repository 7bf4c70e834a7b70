// What comes in is in view, unless somebody has scrolled up to read.
//
// Web Chat follows by itself, and loses track: it takes a scroll event that a picture, a card or the buttons under the
// text box have caused for a person's, and then what comes stays below the fold. Here only a hand stops it.

const SCROLLS = '.webchat__basic-transcript__scrollable';
const GESTURES = ['wheel', 'touchmove', 'pointerdown', 'keydown'];
const GESTURE_MS = 1000; // for so long a gesture goes on to scroll
const NEAR_PX = 4;

// Follows inside of `chat`, from the moment that Web Chat draws its transcript. Answers how to stop.
export function follow(chat) {
  let stop = () => {};
  let scrolls;
  const draw = () => {
    const found = chat.querySelector(SCROLLS);
    if (found !== scrolls) {
      stop();
      scrolls = found;
      stop = found ? followIn(found) : () => {};
    }
  };
  const drawn = new MutationObserver(draw);
  drawn.observe(chat, { childList: true, subtree: true });
  draw();
  return () => {
    drawn.disconnect();
    stop();
  };
}

function followIn(scrolls) {
  let following = true;
  let moved = -Infinity;
  let before = { scrollTop: 0, scrollHeight: 0 };
  const isAtEnd = () => scrolls.scrollHeight - scrolls.scrollTop - scrolls.clientHeight < NEAR_PX;
  const toEnd = () => following && !isAtEnd() && scrolls.scrollTo({ top: scrolls.scrollHeight });
  const onGesture = () => {
    moved = performance.now();
  };
  const onScroll = () => {
    const { scrollTop, scrollHeight } = scrolls;
    const up = scrollTop < before.scrollTop && scrollHeight === before.scrollHeight;
    if (isAtEnd()) {
      following = true;
    } else if (up && performance.now() - moved < GESTURE_MS) {
      following = false;
    }
    before = { scrollTop, scrollHeight };
  };
  const sizes = new ResizeObserver(toEnd);
  sizes.observe(scrolls);
  for (const part of scrolls.children) {
    sizes.observe(part);
  }
  for (const gesture of GESTURES) {
    scrolls.addEventListener(gesture, onGesture, { passive: true });
  }
  scrolls.addEventListener('scroll', onScroll, { passive: true });
  return () => {
    sizes.disconnect();
    for (const gesture of GESTURES) {
      scrolls.removeEventListener(gesture, onGesture);
    }
    scrolls.removeEventListener('scroll', onScroll);
  };
}
