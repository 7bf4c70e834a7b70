// The check bot on the Bot Framework SDK for JavaScript. What it does stands in ../checks.py.
//
//     node bb_js.mjs PORT
//
// Its configuration is the environment. Without MicrosoftAppId it has no app id.
import { ConfidentialClientApplication } from '@azure/msal-node'
import { MsalServiceClientCredentialsFactory } from 'botframework-connector'
import {
  ActivityHandler, ActivityTypes, CardFactory, CloudAdapter, ConfigurationBotFrameworkAuthentication, MessageFactory,
  TurnContext
} from 'botbuilder'
import { INLINE, PICTURE, fetched, references, serve, speakLater, steadyBurst } from './checks.mjs'

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

class Bot extends ActivityHandler {
  constructor () {
    super()
    this.onTurn(async (context, next) => {
      const reference = TurnContext.getConversationReference(context.activity)
      references.save(reference.conversation.id, reference)
      await next()
    })
    this.onMembersAdded(async (context, next) => {
      for (const member of context.activity.membersAdded) {
        if (member.id !== context.activity.recipient.id) await context.sendActivity(`hello ${member.id}`)
      }
      await next()
    })
    this.onEvent(async (context, next) => {
      await context.sendActivity(`event: ${context.activity.name}`)
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

const connector = context => context.turnState.get(adapter.ConnectorClientKey)

const commands = {
  async typing (context) {
    await context.sendActivity({ type: ActivityTypes.Typing })
    await context.sendActivity('echo: typing')
  },

  async batch (context) {
    await context.sendActivities([
      MessageFactory.text('batch 1'), { type: ActivityTypes.Typing }, MessageFactory.text('batch 2')
    ])
  },

  async card (context) {
    const picture = { contentType: 'image/png', contentUrl: INLINE, name: 'dot.png' }
    await context.sendActivity(MessageFactory.list([CardFactory.heroCard('A card'), picture], 'a card'))
  },

  async members (context) {
    const conversationId = context.activity.conversation.id
    const members = await connector(context).conversations.getConversationMembers(conversationId)
    const paged = await connector(context).conversations.getConversationPagedMembers(conversationId)
    if (paged.members.length !== members.length) throw new Error('pages are not the whole')
    await context.sendActivity('members: ' + members.map(member => member.id).join(' '))
  },

  async update (context) {
    await context.updateActivity({ ...MessageFactory.text('after'), id: (await context.sendActivity('before')).id })
  },

  async delete (context) {
    await context.deleteActivity((await context.sendActivity('gone')).id)
    await context.sendActivity('deleted')
  },

  async attach (context) {
    const conversationId = context.activity.conversation.id
    const data = { name: 'dot.png', type: 'image/png', originalBase64: Buffer.from(PICTURE, 'base64') }
    const { id } = await connector(context).conversations.uploadAttachment(conversationId, data)
    const contentUrl = `${context.activity.serviceUrl}/v3/attachments/${id}/views/original`
    await context.sendActivity(MessageFactory.attachment({ contentType: 'image/png', contentUrl }, 'attached'))
  },

  async end (context) {
    await context.sendActivity({ type: ActivityTypes.EndOfConversation, code: 'completedSuccessfully' })
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
    const reference = TurnContext.getConversationReference(context.activity)
    speakLater(Number(asked[1]), () => speak(reference, asked[2]))
  } else if (Object.hasOwn(commands, text)) {
    await commands[text](context)
  } else {
    await say(`echo: ${text}`)
  }
}

const bot = new Bot()
serve((request, response) => adapter.process(request, response, context => bot.run(context)), speak)
