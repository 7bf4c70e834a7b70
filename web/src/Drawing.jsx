// The line, drawn: this page, the server, and the bot behind it. Only the part between the first two can be cut.

const LABELS = {
  connecting: 'The line from this page to the server is being opened',
  open: 'The line from this page to the server is open',
  cut: 'The line from this page to the server is cut',
  returning: 'The line from this page to the server is coming back'
};

export function Drawing({ state }) {
  return (
    <svg className={`drawing ${state}`} viewBox="0 0 320 76" role="img" aria-label={LABELS[state]}>
      <g className="wire">
        <path className="near" d="M30 28H95" />
        <path className="far" d="M95 28H160" />
      </g>
      <path className="behind" d="M160 28H290" />
      <g className="ends">
        <circle cx="30" cy="28" r="9" />
        <circle cx="160" cy="28" r="9" />
        <circle cx="290" cy="28" r="9" />
      </g>
      <g className="names" aria-hidden="true">
        <text x="30" y="66">You</text>
        <text x="160" y="66">Landline</text>
        <text x="290" y="66">Bot</text>
      </g>
    </svg>
  );
}
