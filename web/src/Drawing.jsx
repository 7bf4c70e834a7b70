// The line, drawn: this page, the server, and the bot behind it. The part between the first two can be cut by hand; the
// part behind them stands as the bot lets it.

const LINE = {
  connecting: 'The line from this page to Landline is being opened',
  open: 'The line from this page to Landline is open',
  cut: 'The line from this page to Landline is cut',
  returning: 'The line from this page to Landline is coming back'
};

export function Drawing({ state, bot: { own, standing } }) {
  const name = own ? 'Your bot' : 'Bot';
  const label = `${LINE[state]}. From Landline to the bot: ${standing.word}.`;
  return (
    <svg className={`drawing ${state} bot-${standing.state}`} viewBox="0 0 320 76" role="img" aria-label={label}>
      <g className="wire">
        <path className="near" d="M30 28H95" />
        <path className="far" d="M95 28H160" />
      </g>
      <path className="behind" d={standing.state === 'trouble' ? 'M160 28H204M246 28H290' : 'M160 28H290'} />
      <g className="ends">
        <circle cx="30" cy="28" r="9" />
        <circle cx="160" cy="28" r="9" />
        <circle cx="290" cy="28" r="9" />
      </g>
      <g className="names" aria-hidden="true">
        <text className="standing" x="225" y="16">
          {standing.word}
        </text>
        <text x="30" y="66">
          You
        </text>
        <text x="160" y="66">
          Landline
        </text>
        <text x="286" y="66">
          {name}
        </text>
      </g>
    </svg>
  );
}
