// The check bot on the Microsoft 365 Agents SDK for JavaScript. What it does stands in ../checks.py.
//
//     node ag_js.mjs PORT
//
// Its configuration is the environment. Without a connection there it has no app id.
import { Activity, ActivityTypes } from '@microsoft/agents-activity'
import {
  ActivityHandler, CardFactory, CloudAdapter, MessageFactory, authorizeJWT, loadAuthConfigFromEnv
} from '@microsoft/agents-hosting'
import { setTimeout as sleep } from 'node:timers/promises'
import { INLINE, PICTURE, fetched, references, serve, speakLater, steadyBurst } from './checks.mjs'

const configuration = loadAuthConfigFromEnv()
const adapter = new CloudAdapter(configuration)

// What the SDK itself makes of a request without a token.
const identity = configuration.clientId ?? { name: 'anonymous' }
if (configuration.clientId) adapter.connectionManager = connections(configuration)

// The library that fetches tokens knows no authority but Microsoft's, and nothing tells it.
function connections (settings) {
  const { clientId, clientSecret, authorityEndpoint } = settings
  const form = new URLSearchParams({
    grant_type: 'client_credentials', client_id: clientId, client_secret: clientSecret
  })
  let token
  let renewAt = 0
  const provider = {
    connectionSettings: settings,
    async getAccessToken () {
      if (Date.now() >= renewAt) {
        const answer = await fetch(`${authorityEndpoint}/oauth2/v2.0/token`, { method: 'POST', body: form })
        if (!answer.ok) throw new Error(`no token: ${answer.status}`)
        const granted = await answer.json()
        token = granted.access_token
        renewAt = Date.now() + granted.expires_in * 900
      }
      return token
    }
  }
  return {
    getConnection: () => provider,
    getDefaultConnection: () => provider,
    getTokenProvider: () => provider,
    getTokenProviderFromActivity: () => provider,
    getDefaultConnectionConfiguration: () => settings
  }
}

async function speak (reference, text) {
  let id
  await adapter.continueConversation(identity, reference, async context => {
    id = (await context.sendActivity(text)).id
  })
  return id
}

class Bot extends ActivityHandler {
  constructor () {
    super()
    this.onTurn(async (context, next) => {
      const reference = context.activity.getConversationReference()
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
    // Its handler knows no events.
    this.onUnrecognizedActivityType(async (context, next) => {
      if (context.activity.type === 'event') await context.sendActivity(`event: ${context.activity.name}`)
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

const connector = context => context.turnState.get(adapter.ConnectorClientKey)

const commands = {
  async typing (context) {
    await context.sendActivity(Activity.fromObject({ type: ActivityTypes.Typing }))
    await context.sendActivity('echo: typing')
  },

  async batch (context) {
    const typing = Activity.fromObject({ type: ActivityTypes.Typing })
    await context.sendActivities([MessageFactory.text('batch 1'), typing, MessageFactory.text('batch 2')])
  },

  async card (context) {
    const picture = { contentType: 'image/png', contentUrl: INLINE, name: 'dot.png' }
    await context.sendActivity(MessageFactory.list([CardFactory.heroCard('A card'), picture], 'a card'))
  },

  async members (context) {
    const conversationId = context.activity.conversation.id
    // This SDK asks for one at a time, and for nobody whose id it does not know.
    const asked = [context.activity.recipient.id, context.activity.from.id]
    const members = []
    for (const id of asked) members.push(await connector(context).getConversationMember(id, conversationId))
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
    const conversationId = context.activity.conversation.id
    const data = { name: 'dot.png', type: 'image/png', originalBase64: PICTURE }
    const { id } = await connector(context).uploadAttachment(conversationId, data)
    const contentUrl = `${context.activity.serviceUrl}/v3/attachments/${id}/views/original`
    await context.sendActivity(MessageFactory.attachment({ contentType: 'image/png', contentUrl }, 'attached'))
  },

  async stream (context) {
    context.streamingResponse.queueInformativeUpdate('thinking')
    for (const chunk of ['one', ' two', ' three']) {
      context.streamingResponse.queueTextChunk(chunk)
      await sleep(600) // the SDK sends what has gathered every half second
    }
    await context.streamingResponse.endStream()
  },

  async end (context) {
    await context.sendActivity(Activity.fromObject({ type: 'endOfConversation', code: 'completedSuccessfully' }))
  }
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
    const reference = context.activity.getConversationReference()
    speakLater(Number(asked[1]), () => speak(reference, asked[2]))
  } else if (Object.hasOwn(commands, text)) {
    await commands[text](context)
  } else {
    await say(`echo: ${text}`)
  }
}

const bot = new Bot()
serve(
  (request, response) => adapter.process(request, response, context => bot.run(context)), speak,
  authorizeJWT(configuration)
)
