// The check bot on the Bot Framework SDK for JavaScript. What it does stands in ../checks.py.
//
//     node bb_js.mjs PORT
//
// Its configuration is the environment. Without MicrosoftAppId it has no app id.
import { ConfidentialClientApplication } from '@azure/msal-node'
import { MsalServiceClientCredentialsFactory } from 'botframework-connector'
import {
  ActivityHandler, CardFactory, CloudAdapter, ConfigurationBotFrameworkAuthentication, MessageFactory, TurnContext
} from 'botbuilder'
import { PICTURE, checkBot, serve } from './checks.mjs'

const appId = process.env.MicrosoftAppId ?? ''
const adapter = new CloudAdapter(new ConfigurationBotFrameworkAuthentication(process.env, appId ? credentials() : undefined))

// The library that fetches tokens knows no authority but Microsoft's unless it is told.
function credentials () {
  const authority = process.env.ToChannelFromBotLoginUrl
  const client = new ConfidentialClientApplication({
    auth: {
      clientId: appId,
      clientSecret: process.env.MicrosoftAppPassword,
      authority,
      knownAuthorities: [new URL(authority).host]
    }
  })
  return new MsalServiceClientCredentialsFactory(appId, client)
}

async function speak (reference, text) {
  let id
  await adapter.continueConversationAsync(appId, reference, async context => {
    id = (await context.sendActivity(text)).id
  })
  return id
}

const conversations = context => context.turnState.get(adapter.ConnectorClientKey).conversations

const Checked = checkBot(ActivityHandler, {
  CardFactory,
  MessageFactory,
  adapter,
  appId,
  oneself: 'bot',
  speak,
  activity: fields => fields,
  reference: context => TurnContext.getConversationReference(context.activity),
  picture: Buffer.from(PICTURE, 'base64'),
  upload: (context, data) => conversations(context).uploadAttachment(context.activity.conversation.id, data),

  async members (context) {
    const members = await conversations(context).getConversationMembers(context.activity.conversation.id)
    const paged = await conversations(context).getConversationPagedMembers(context.activity.conversation.id)
    if (paged.members.length !== members.length) throw new Error('pages are not the whole')
    return members
  },

  commands: {
    async signin (context) {
      const card = CardFactory.oauthCard('github', 'Sign in', 'Sign in', 'https://issuer.example/authorize')
      await context.sendActivity(MessageFactory.attachment(card, 'sign in'))
      const { from, channelId } = context.activity
      const token = await context.turnState.get(adapter.UserTokenClientKey).getUserToken(from.id, 'github', channelId, '')
      await context.sendActivity(`token: ${token?.token ?? 'none'}`)
    }
  }
})

class Bot extends Checked {
  constructor () {
    super()
    this.onEvent(async (context, next) => {
      await context.sendActivity(`event: ${context.activity.name}`)
      await next()
    })
  }
}

const bot = new Bot()
serve((request, response) => adapter.process(request, response, context => bot.run(context)), speak)
