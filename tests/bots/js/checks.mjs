// What the check bots on JavaScript share, none of it an SDK's. What they do stands in ../checks.py.
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import express from 'express'

export const PICTURE =
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='
export const INLINE = `data:image/png;base64,${PICTURE}`
const PAUSE_MS = 10

// Conversation references by conversation id; each change is on disk before the turn goes on.
class References {
  constructor (path) {
    this.path = path
    try {
      this.saved = JSON.parse(readFileSync(path, 'utf8'))
    } catch {
      this.saved = {}
    }
  }

  save (id, reference) {
    const changed = JSON.stringify(this.saved[id]) !== JSON.stringify(reference)
    if (changed) {
      this.saved[id] = reference
      writeFileSync(`${this.path}.new`, JSON.stringify(this.saved))
      renameSync(`${this.path}.new`, this.path)
    }
  }
}

export const references = new References(process.env.CHECK_BOT_REFERENCES)

// What the connector answered, in order, by conversation: [[text, id], …].
const sent = {}

export async function steadyBurst (conversationId, count, say) {
  const answered = (sent[conversationId] ??= [])
  for (let number = 1; number <= count; number++) {
    const text = `burst ${number}`
    try {
      answered.push([text, await say(text)])
    } catch (error) {
      console.error(text, error.message)
    }
    await sleep(PAUSE_MS)
  }
}

export async function fetched (url) {
  const answer = await fetch(url)
  if (!answer.ok) throw new Error(`${answer.status} for a file`)
  const { byteLength } = await answer.arrayBuffer()
  return `got ${byteLength} bytes of ${answer.headers.get('content-type').split(';')[0]}`
}

export async function speakLater (seconds, speak) {
  await sleep(seconds * 1000)
  await speak()
}

// `turn` takes a request and its response; `speak` says a text by a reference and answers its id.
export function serve (turn, speak, ...middleware) {
  const app = express()
  app.use(express.json({ limit: '1mb' }))
  app.get('/health', (request, response) => response.end())
  app.get('/sent', (request, response) => response.json(sent[request.query.conversation] ?? []))
  app.post('/proactive', async (request, response) => {
    const reference = references.saved[request.body.conversationId]
    if (reference === undefined) return response.status(404).json({ error: 'no reference of this conversation' })
    response.json({ id: await speak(reference, request.body.text) })
  })
  app.post('/api/messages', ...middleware, turn)
  app.listen(Number(process.argv[2]), '127.0.0.1')
}
