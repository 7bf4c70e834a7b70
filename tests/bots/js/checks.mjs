// What the check bots on JavaScript share. What they do stands in ../checks.py.
import dns from 'node:dns'
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import express from 'express'

export const PICTURE =
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='
const INLINE = `data:image/png;base64,${PICTURE}`
const CONNECTOR = 'https://api.botframework.com'
const PAUSE_MS = 10
const AFTER_A_FAILURE_MS = 200

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

const references = new References(process.env.CHECK_BOT_REFERENCES)

// What the connector answered, in order, by conversation: [[text, id], …].
const sent = {}

async function steadyBurst (conversationId, count, say) {
  const answered = (sent[conversationId] ??= [])
  for (let number = 1; number <= count; number++) {
    const text = `burst ${number}`
    try {
      answered.push([text, await say(text)])
      await sleep(PAUSE_MS)
    } catch (error) {
      console.error(text, error.message)
      await sleep(AFTER_A_FAILURE_MS)
    }
  }
}

async function fetched (url) {
  const answer = await fetch(url)
  if (!answer.ok) throw new Error(`${answer.status} for a file`)
  const { byteLength } = await answer.arrayBuffer()
  return `got ${byteLength} bytes of ${answer.headers.get('content-type').split(';')[0]}`
}

async function speakLater (seconds, speak) {
  await sleep(seconds * 1000)
  await speak()
}

// The turns, in the words that both SDKs for JavaScript have, as a class on the SDK's ActivityHandler. `sdk` has its
// CardFactory and MessageFactory, and what it says in words of its own:
//     activity (fields)     an activity of the SDK
//     reference (context)   the reference of the conversation
//     picture               PICTURE, as the SDK takes it for an upload
//     upload (context, data), members (context)   calls of the connector
//     adapter, appId, speak (reference, text)
//     oneself               its word for the bot of a conversation
//     commands              more of them
export function checkBot (ActivityHandler, { CardFactory, MessageFactory, ...sdk }) {
  const commands = {
    async typing (context) {
      await context.sendActivity(sdk.activity({ type: 'typing' }))
      await context.sendActivity('echo: typing')
    },

    async batch (context) {
      const typing = sdk.activity({ type: 'typing' })
      await context.sendActivities([MessageFactory.text('batch 1'), typing, MessageFactory.text('batch 2')])
    },

    async card (context) {
      const picture = { contentType: 'image/png', contentUrl: INLINE, name: 'dot.png' }
      await context.sendActivity(MessageFactory.list([CardFactory.heroCard('A card'), picture], 'a card'))
    },

    async members (context) {
      const members = await sdk.members(context)
      await context.sendActivity('members: ' + members.map(member => member.id).join(' '))
    },

    async update (context) {
      const changed = MessageFactory.text('after')
      changed.id = (await context.sendActivity('before')).id
      await context.updateActivity(changed)
    },

    async delete (context) {
      await context.deleteActivity((await context.sendActivity('gone')).id)
      await context.sendActivity('deleted')
    },

    async attach (context) {
      const data = { name: 'dot.png', type: 'image/png', originalBase64: sdk.picture }
      const { id } = await sdk.upload(context, data)
      const contentUrl = `${context.activity.serviceUrl}/v3/attachments/${id}/views/original`
      await context.sendActivity(MessageFactory.attachment({ contentType: 'image/png', contentUrl }, 'attached'))
    },

    async create (context) {
      const { from, recipient, channelId, serviceUrl } = context.activity
      const parameters = { isGroup: false, [sdk.oneself]: recipient, members: [{ id: from.id }] }
      let begun
      await sdk.adapter.createConversationAsync(sdk.appId, channelId, serviceUrl, CONNECTOR, parameters, async there => {
        await there.sendActivity('I began this')
        begun = there.activity.conversation.id
      })
      await context.sendActivity(`created ${begun}`)
    },

    async end (context) {
      await context.sendActivity(sdk.activity({ type: 'endOfConversation', code: 'completedSuccessfully' }))
    },

    ...sdk.commands
  }

  async function answer (context) {
    const text = context.activity.text ?? ''
    const say = async text => (await context.sendActivity(text)).id
    let asked
    if (context.activity.attachments?.length) {
      await say(await fetched(context.activity.attachments[0].contentUrl))
    } else if ((asked = /^(steady )?burst (\d+)$/.exec(text))) {
      if (asked[1]) return await steadyBurst(context.activity.conversation.id, Number(asked[2]), say)
      for (let number = 1; number <= Number(asked[2]); number++) await say(`burst ${number}`)
    } else if ((asked = /^later ([\d.]+) seconds (.+)$/s.exec(text))) {
      const reference = sdk.reference(context)
      speakLater(Number(asked[1]), () => sdk.speak(reference, asked[2]))
    } else if (Object.hasOwn(commands, text)) {
      await commands[text](context)
    } else {
      await say(`echo: ${text}`)
    }
  }

  return class extends ActivityHandler {
    constructor () {
      super()
      this.onTurn(async (context, next) => {
        const reference = sdk.reference(context)
        references.save(reference.conversation.id, reference)
        await next()
      })
      this.onMembersAdded(async (context, next) => {
        for (const member of context.activity.membersAdded) {
          if (member.id !== context.activity.recipient.id) await context.sendActivity(`hello ${member.id}`)
        }
        await next()
      })
      this.onMessage(async (context, next) => {
        await answer(context)
        await next()
      })
    }

    async onInvokeActivity (context) {
      switch (context.activity.name) {
        case 'ping': return { status: 200, body: { pong: context.activity.value } }
        case 'refuse': return { status: 418, body: { reason: 'teapot' } }
        case 'empty': return { status: 200 }
        default: return { status: 501 }
      }
    }
  }
}

// `turn` takes a request and its response; `speak` says a text by a reference and answers its id.
// Has the log name every host that this process wants to reach.
function printHosts () {
  const { lookup } = dns
  dns.lookup = (host, ...more) => {
    console.log(`looks up ${host}`)
    return lookup(host, ...more)
  }
}

export function serve (turn, speak, ...middleware) {
  printHosts()
  const app = express()
  app.use(express.json({ limit: '1mb' }))
  app.get('/health', (request, response) => response.end())
  app.get('/sent', (request, response) => response.json(sent[request.query.conversation] ?? []))
  app.post('/proactive', async (request, response) => {
    const reference = references.saved[request.body.conversationId]
    if (reference === undefined) return response.status(404).json({ error: 'no reference of this conversation' })
    const { text, serviceUrl } = request.body
    response.json({ id: await speak(serviceUrl ? { ...reference, serviceUrl } : reference, text) })
  })
  app.post('/api/messages', ...middleware, turn)
  app.listen(Number(process.argv[2]), '127.0.0.1')
}
