// The check bot on the Microsoft 365 Agents SDK for JavaScript. What it does stands in ../checks.py.
//
//     node ag_js.mjs PORT
//
// Its configuration is the environment. Without a connection there it has no app id.
import { Activity } from '@microsoft/agents-activity'
import {
  ActivityHandler, CardFactory, CloudAdapter, MessageFactory, authorizeJWT, loadAuthConfigFromEnv
} from '@microsoft/agents-hosting'
import { setTimeout as sleep } from 'node:timers/promises'
import { PICTURE, checkBot, serve } from './checks.mjs'

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

const connector = context => context.turnState.get(adapter.ConnectorClientKey)

const Checked = checkBot(ActivityHandler, {
  CardFactory,
  MessageFactory,
  adapter,
  appId: configuration.clientId,
  oneself: 'agent',
  speak,
  activity: fields => Activity.fromObject(fields),
  reference: context => context.activity.getConversationReference(),
  picture: PICTURE,
  upload: (context, data) => connector(context).uploadAttachment(context.activity.conversation.id, data),

  // This SDK asks for one at a time, and for nobody whose id it does not know.
  async members (context) {
    const members = []
    for (const { id } of [context.activity.recipient, context.activity.from]) {
      members.push(await connector(context).getConversationMember(id, context.activity.conversation.id))
    }
    return members
  },

  commands: {
    async signin (context) {
      const card = CardFactory.oauthCard('github', 'Sign in', 'Sign in', { signInLink: 'https://issuer.example/authorize' })
      await context.sendActivity(MessageFactory.attachment(card, 'sign in'))
      const { from, channelId } = context.activity
      const token = await context.turnState.get(adapter.UserTokenClientKey).getUserToken('github', channelId, from.id)
      await context.sendActivity(`token: ${token?.token ?? 'none'}`)
    },

    async stream (context) {
      context.streamingResponse.queueInformativeUpdate('thinking')
      for (const chunk of ['one', ' two', ' three']) {
        context.streamingResponse.queueTextChunk(chunk)
        await sleep(600) // the SDK sends what has gathered every half second
      }
      await context.streamingResponse.endStream()
    }
  }
})

class Bot extends Checked {
  constructor () {
    super()
    // Its handler knows no events.
    this.onUnrecognizedActivityType(async (context, next) => {
      if (context.activity.type === 'event') await context.sendActivity(`event: ${context.activity.name}`)
      await next()
    })
  }
}

const bot = new Bot()
serve(
  (request, response) => adapter.process(request, response, context => bot.run(context)), speak,
  authorizeJWT(configuration)
)
