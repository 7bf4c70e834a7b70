-- Landline's schema, layout 1. The service needs USAGE on the schema and SELECT, INSERT, UPDATE, DELETE on its tables;
-- only the owner, who runs this, needs more. Text that strangers write is kept as bytes: it may hold what PostgreSQL's
-- text cannot.

CREATE SCHEMA IF NOT EXISTS landline;

CREATE TABLE landline.layout (
    version integer NOT NULL
);
COMMENT ON TABLE landline.layout IS 'One row: which layout this is. Whoever changes the layout locks it.';
INSERT INTO landline.layout (version) VALUES (0);

-- Where each node writes from. A row is locked by every transaction of its lane and deleted when the lane's connection
-- was lost: that waits for what is under way, and stops what comes late.
CREATE TABLE landline.lanes (
    lane bigint PRIMARY KEY,
    opened_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);
COMMENT ON TABLE landline.lanes IS 'Connections that append; deleting a row fences its connection.';

CREATE TABLE landline.bots (
    bot_id text COLLATE "C" PRIMARY KEY,
    started bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
COMMENT ON TABLE landline.bots IS 'How many conversations were started, so that places become visible in their order.';

-- No index covers a column that an append changes, so that its updates stay in their page (heap-only). `oldest_ms` is
-- set by the first append only, and when entries expire.
CREATE TABLE landline.conversations (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    bucket integer NOT NULL,
    bot_id text COLLATE "C" NOT NULL,
    place bigint NOT NULL,
    user_id bytea,
    user_name bytea,
    locale bytea,
    head integer NOT NULL DEFAULT 0,
    last_ms bigint,
    oldest integer NOT NULL DEFAULT 0,
    oldest_ms bigint,
    used_ms bigint NOT NULL,
    operation bigint NOT NULL,
    purged_ms bigint,
    cleared boolean NOT NULL DEFAULT false
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
COMMENT ON TABLE landline.conversations IS 'A row for each conversation: where its log stands. `bucket` is its week.';
CREATE UNIQUE INDEX conversations_of_bot ON landline.conversations (bot_id, place);
CREATE INDEX conversations_used ON landline.conversations (used_ms) WHERE purged_ms IS NULL;
CREATE INDEX conversations_oldest ON landline.conversations (oldest_ms) WHERE oldest_ms IS NOT NULL;
CREATE INDEX conversations_purged ON landline.conversations (purged_ms) WHERE purged_ms IS NOT NULL;

-- The bucket leads every key, so that the table can become partitioned by it without being written anew.
CREATE TABLE landline.entries (
    bucket integer NOT NULL,
    conversation bigint NOT NULL,
    sequence integer NOT NULL,
    audience smallint NOT NULL,
    original integer,
    original_ms bigint,
    time_ms bigint NOT NULL,
    operation bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (bucket, conversation, sequence)
) WITH (autovacuum_vacuum_insert_scale_factor = 0.1);
COMMENT ON TABLE landline.entries IS 'What was said: the conversation logs. `operation` is the append that wrote it.';
CREATE INDEX entries_versions ON landline.entries (bucket, conversation, original, sequence)
    WHERE original IS NOT NULL;

CREATE TABLE landline.sends (
    bucket integer NOT NULL,
    conversation bigint NOT NULL,
    key bytea NOT NULL,
    digest bytea NOT NULL,
    sequence integer NOT NULL,
    time_ms bigint NOT NULL,
    taken boolean NOT NULL DEFAULT false,
    PRIMARY KEY (bucket, conversation, key)
) WITH (fillfactor = 90);
COMMENT ON TABLE landline.sends IS 'Keys of sends (Idempotency-Key), so that a repeat is answered as the first was.';
-- An expression, so that nobody finds a key by it: a conversation may have many.
CREATE INDEX sends_by_place ON landline.sends ((conversation << 28 | sequence));

CREATE TABLE landline.members (
    conversation bigint NOT NULL,
    account_id bytea NOT NULL,
    name bytea,
    rank integer NOT NULL,
    is_bot boolean NOT NULL,
    announced boolean NOT NULL DEFAULT false,
    has_left boolean NOT NULL DEFAULT false,
    claimed_until_ms bigint,
    PRIMARY KEY (conversation, account_id)
) WITH (fillfactor = 90);
COMMENT ON TABLE landline.members IS 'Who takes part. Who left keeps a row, to be found when they are to be forgotten.';
COMMENT ON COLUMN landline.members.claimed_until_ms IS 'Until when one node is telling the bot of the join.';
CREATE INDEX members_by_account ON landline.members (account_id) WHERE NOT is_bot;

CREATE TABLE landline.records (
    name text COLLATE "C" PRIMARY KEY,
    value bytea NOT NULL
);
COMMENT ON TABLE landline.records IS 'What the deployment keeps by name: keys, bots, sites.';

CREATE TABLE landline.failures (
    arrival bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    conversation text COLLATE "C" NOT NULL,
    sequence integer NOT NULL,
    bot_id text NOT NULL,
    at_ms bigint NOT NULL,
    reason text NOT NULL,
    status integer,
    attempts integer NOT NULL,
    UNIQUE (conversation, sequence)
);
COMMENT ON TABLE landline.failures IS 'Deliveries that failed, the newest of them.';

CREATE FUNCTION landline.enter(entering bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- A default that was changed under an open session must not weaken what was promised.
    IF current_setting('synchronous_commit') IN ('off', 'local') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    PERFORM FROM landline.lanes WHERE lane = entering FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this lane was given up' USING ERRCODE = 'LL001';
    END IF;
END
$$;
COMMENT ON FUNCTION landline.enter IS 'Begin a transaction of a lane; refused once the lane was fenced.';

CREATE FUNCTION landline.standing(in_bucket integer, in_conversation bigint, of_sequence integer, oldest integer)
RETURNS smallint LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN of_sequence < 0 THEN 2
        WHEN of_sequence < oldest THEN coalesce((
            SELECT CASE WHEN audience = 2 OR original_ms = time_ms THEN 1 ELSE 0 END FROM landline.entries
            WHERE bucket = in_bucket AND conversation = in_conversation AND original = of_sequence
            ORDER BY sequence DESC LIMIT 1
        ), 2)
        ELSE coalesce((
            SELECT CASE WHEN original IS NOT NULL THEN 2 WHEN audience = 2 THEN 1 ELSE 0 END FROM landline.entries
            WHERE bucket = in_bucket AND conversation = in_conversation AND sequence = of_sequence
        ), 2)
    END::smallint
$$;
COMMENT ON FUNCTION landline.standing IS 'Of an activity: 0 it is there, 1 it was deleted, 2 there is none.';

-- The plans of these are the same whatever is asked and whatever the tables hold: rows are found one by one, by index.
-- To plan anew for each group takes longer than the group, and a plan that was made for empty tables would read all of
-- them when they are full. To compile it takes longer still, and a large table would make PostgreSQL do so.
-- Verdicts: 0 accepted, 1 repeated, 2 unknown conversation, 3 conflict, 4 unknown activity, 5 too many members,
-- 6 conversation full, 7 deleted before. What is not accepted changes nothing.
CREATE FUNCTION landline.append(
    from_lane bigint, now_ms bigint, ids text[], operations bigint[], audiences smallint[], bodies bytea[],
    originals integer[], original_times bigint[], keys bytea[], digests bytea[], sinces bigint[], newcomers bytea[],
    mosts integer[]
) RETURNS TABLE (verdict integer, sequence integer, time_ms bigint, taken boolean) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
    PERFORM landline.enter(from_lane);
    -- Locked first, and in one order: what the next statement sees of these logs is final.
    PERFORM FROM landline.conversations WHERE id = ANY (ids) ORDER BY number FOR NO KEY UPDATE;
    RETURN QUERY
    WITH asked AS (
        SELECT u.*, CASE WHEN c.purged_ms IS NULL THEN c.number END AS number, c.bucket, c.head, c.last_ms, c.oldest
        FROM unnest(ids, operations, audiences, bodies, originals, original_times, keys, digests, sinces, newcomers,
            mosts) WITH ORDINALITY
            AS u (id, operation, audience, body, original, original_ms, key, digest, since_ms, newcomer, most, rank)
        LEFT JOIN LATERAL (SELECT * FROM landline.conversations AS x WHERE x.id = u.id LIMIT 1) AS c ON true
    ), judged AS (
        SELECT a.*, s.sequence AS earlier, s.time_ms AS earlier_ms, s.taken AS earlier_taken, CASE
            WHEN a.number IS NULL THEN 2
            WHEN s.digest = a.digest THEN 1
            WHEN s.digest IS NOT NULL THEN 3
            WHEN a.original IS NOT NULL AND landline.standing(a.bucket, a.number, a.original, a.oldest) > 0 THEN 4
            WHEN a.newcomer IS NOT NULL AND (
                SELECT m.has_left FROM landline.members AS m
                WHERE m.conversation = a.number AND m.account_id = a.newcomer LIMIT 1
            ) IS DISTINCT FROM false AND (
                SELECT count(*) FROM landline.members AS m WHERE m.conversation = a.number AND NOT m.has_left
            ) >= a.most THEN 5
            ELSE 0
        END AS verdict
        FROM asked AS a LEFT JOIN LATERAL (
            SELECT * FROM landline.sends AS x
            WHERE x.bucket = a.bucket AND x.conversation = a.number AND x.key = a.key AND x.time_ms >= a.since_ms
            LIMIT 1
        ) AS s ON true
    ), counted AS (
        SELECT j.*, (count(*) FILTER (WHERE j.verdict = 0) OVER (PARTITION BY j.number ORDER BY j.rank))::integer AS nth
        FROM judged AS j
    ), numbered AS (
        SELECT c.*, c.head + c.nth - 1 AS sequence, greatest(now_ms, c.last_ms + 1) + c.nth - 1 AS time_ms,
            CASE WHEN c.verdict = 0 AND c.head + c.nth > 268435455 THEN 6 ELSE c.verdict END AS final
        FROM counted AS c
    ), added AS (
        INSERT INTO landline.entries
            (bucket, conversation, sequence, audience, original, original_ms, time_ms, operation, body)
        SELECT n.bucket, n.number, n.sequence, n.audience, n.original, n.original_ms, n.time_ms, n.operation, n.body
        FROM numbered AS n WHERE n.final = 0
    ), remembered AS (
        INSERT INTO landline.sends AS s (bucket, conversation, key, digest, sequence, time_ms)
        SELECT n.bucket, n.number, n.key, n.digest, n.sequence, n.time_ms
        FROM numbered AS n WHERE n.final = 0 AND n.key IS NOT NULL
        ON CONFLICT (bucket, conversation, key) DO UPDATE
        SET digest = excluded.digest, sequence = excluded.sequence, time_ms = excluded.time_ms, taken = false
    ), moved AS (
        UPDATE landline.conversations AS c
        SET head = m.head, last_ms = m.last_ms, oldest_ms = coalesce(c.oldest_ms, m.first_ms)
        FROM (
            SELECT n.number, max(n.sequence) + 1 AS head, max(n.time_ms) AS last_ms, min(n.time_ms) AS first_ms
            FROM numbered AS n WHERE n.final = 0 GROUP BY n.number
        ) AS m
        WHERE c.number = m.number
    )
    SELECT n.final, CASE WHEN n.final = 1 THEN n.earlier ELSE n.sequence END,
        CASE WHEN n.final = 1 THEN n.earlier_ms ELSE n.time_ms END, coalesce(n.earlier_taken AND n.final = 1, false)
    FROM numbered AS n ORDER BY n.rank;
END
$$;
COMMENT ON FUNCTION landline.append IS 'Append a group: a row for each entry asked for, in their order.';

CREATE FUNCTION landline.erase(
    from_lane bigint, now_ms bigint, of_id text, of_sequence integer, of_operation bigint, notice_audience smallint,
    notice bytea
) RETURNS TABLE (verdict integer, sequence integer, time_ms bigint, taken boolean) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    log landline.conversations;
    found smallint;
    at_ms bigint;
BEGIN
    PERFORM landline.enter(from_lane);
    SELECT * INTO log FROM landline.conversations WHERE id = of_id AND purged_ms IS NULL FOR NO KEY UPDATE;
    IF log.number IS NULL THEN
        RETURN QUERY SELECT 2, 0, 0::bigint, false;
        RETURN;
    END IF;
    found := landline.standing(log.bucket, log.number, of_sequence, log.oldest);
    IF found > 0 OR log.head >= 268435455 THEN
        RETURN QUERY SELECT CASE found WHEN 2 THEN 4 WHEN 1 THEN 7 ELSE 6 END, 0, 0::bigint, false;
        RETURN;
    END IF;
    at_ms := greatest(now_ms, log.last_ms + 1);
    UPDATE landline.entries AS e SET body = '', audience = 2
    WHERE e.bucket = log.bucket AND e.conversation = log.number AND (e.sequence = of_sequence OR e.original = of_sequence);
    INSERT INTO landline.entries
        (bucket, conversation, sequence, audience, original, original_ms, time_ms, operation, body)
    VALUES (log.bucket, log.number, log.head, notice_audience, of_sequence, at_ms, at_ms, of_operation, notice);
    UPDATE landline.conversations AS c
    SET head = log.head + 1, last_ms = at_ms, oldest_ms = coalesce(c.oldest_ms, at_ms) WHERE c.number = log.number;
    RETURN QUERY SELECT 0, log.head, at_ms, false;
END
$$;
COMMENT ON FUNCTION landline.erase IS 'Erase an activity with its versions, and append the notice of it.';

CREATE FUNCTION landline.start(
    from_lane bigint, now_ms bigint, ids text[], operations bigint[], bot_ids text[], user_ids bytea[], user_names bytea[], locales bytea[],
    member_names bytea[], guest_ids bytea[], guest_names bytea[]
) RETURNS TABLE (created boolean) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
    PERFORM landline.enter(from_lane);
    INSERT INTO landline.bots (bot_id) SELECT DISTINCT bot FROM unnest(bot_ids) AS bot ORDER BY bot
    ON CONFLICT DO NOTHING;
    -- Held until the commit, so that no place becomes visible before a smaller one of the same bot.
    PERFORM FROM landline.bots WHERE bot_id = ANY (bot_ids) ORDER BY bot_id FOR NO KEY UPDATE;
    RETURN QUERY
    WITH asked AS (
        SELECT u.*, b.started + row_number() OVER (PARTITION BY u.bot_id ORDER BY u.rank) AS place
        FROM unnest(ids, operations, bot_ids, user_ids, user_names, locales, member_names, guest_ids, guest_names)
            WITH ORDINALITY
            AS u (id, operation, bot_id, user_id, user_name, locale, member_name, guest_id, guest_name, rank)
        JOIN landline.bots AS b ON b.bot_id = u.bot_id
    ), made AS (
        INSERT INTO landline.conversations (id, bucket, bot_id, place, user_id, user_name, locale, used_ms, operation)
        SELECT a.id, (now_ms / 604800000)::integer, a.bot_id, a.place, a.user_id, a.user_name, a.locale, now_ms,
            a.operation
        FROM asked AS a ORDER BY a.id, a.rank
        ON CONFLICT (id) DO NOTHING
        RETURNING number, bot_id, place
    ), counted AS (
        UPDATE landline.bots AS b SET started = p.place
        FROM (SELECT a.bot_id, max(a.place) AS place FROM asked AS a GROUP BY a.bot_id) AS p
        WHERE b.bot_id = p.bot_id
    ), joined AS (
        INSERT INTO landline.members (conversation, account_id, name, rank, is_bot)
        SELECT m.number, who.account_id, who.name, who.rank, who.rank = 1
        FROM made AS m JOIN asked AS a ON a.bot_id = m.bot_id AND a.place = m.place
        CROSS JOIN LATERAL (
            SELECT DISTINCT ON (w.account_id) w.account_id, w.name, w.rank FROM (VALUES
                (convert_to(a.bot_id, 'UTF8'), NULL::bytea, 1), (a.user_id, a.member_name, 2),
                (a.guest_id, a.guest_name, 3)
            ) AS w (account_id, name, rank)
            WHERE w.account_id IS NOT NULL ORDER BY w.account_id, w.rank
        ) AS who
    )
    SELECT m.number IS NOT NULL FROM asked AS a LEFT JOIN made AS m ON m.bot_id = a.bot_id AND m.place = a.place
    ORDER BY a.rank;
END
$$;
COMMENT ON FUNCTION landline.start IS 'Start conversations: whether each was created by this.';

-- Attachments. Their bytes are chunks of 256 KiB, not compressed: most of them are already.
CREATE TABLE landline.blobs (
    blob bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    conversation text COLLATE "C" NOT NULL,
    site text COLLATE "C",
    weight bigint NOT NULL DEFAULT 0,
    known bytea,
    doubtful boolean NOT NULL DEFAULT false,
    kept_ms bigint,
    gone boolean NOT NULL DEFAULT false,
    changed_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);
COMMENT ON TABLE landline.blobs IS 'Attachments: a draft has no kept_ms; what is gone is removed some minutes later.';
CREATE INDEX blobs_of_conversation ON landline.blobs (conversation) WHERE NOT gone;
CREATE INDEX blobs_kept ON landline.blobs (kept_ms) WHERE NOT gone;
CREATE INDEX blobs_unfinished ON landline.blobs (changed_at) WHERE gone OR kept_ms IS NULL OR doubtful;

CREATE TABLE landline.chunks (
    blob bigint NOT NULL,
    place integer NOT NULL,
    bytes bytea NOT NULL,
    PRIMARY KEY (blob, place)
);
ALTER TABLE landline.chunks ALTER COLUMN bytes SET STORAGE EXTERNAL;
COMMENT ON TABLE landline.chunks IS 'The bytes of attachments.';

CREATE TABLE landline.weights (
    name text COLLATE "C" PRIMARY KEY,
    bytes bigint NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE landline.weights IS 'What the attachments of a conversation (c:) and of a site (s:) take up.';
