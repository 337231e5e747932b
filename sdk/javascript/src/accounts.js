/**
 * Accounts: registering, signing in, and the profile of who is signed in.
 *
 * Room: `/v1/auth` and `/v1/users`. Tokens are kept and renewed by `transport`.
 */

import { MfaRequired } from './errors.js';
import { tokensOf } from './transport.js';

/** @typedef {import('./transport.js').Tokens} Tokens */

/** One client's sign-in. A new token is fetched before the old one ends, and when it is refused. */
export class Accounts {
  /** @param {import('./transport.js').Transport} transport */
  constructor(transport) {
    this._transport = transport;
  }

  /** What requests are made with; keep it to stay signed in across a restart. @returns {Tokens | undefined} */
  get tokens() {
    return this._transport.tokens;
  }

  /** Go on with tokens that were kept. @param {Tokens | undefined} tokens */
  use(tokens) {
    this._transport.takeTokens(tokens);
  }

  /** @param {{email: string, password: string, username: string, applicationId?: string}} account @returns {Promise<{user_id: string, message: string}>} */
  async register({ email, password, username, applicationId }) {
    const asked = { email, password, username, application_id: applicationId };
    return (await this._transport.ask('POST', '/v1/auth/register', asked, { signed: false })).body;
  }

  /**
   * Sign in. `mfaCode` may be a function that asks for a code when one is needed.
   *
   * @param {{email: string, password: string, applicationId?: string, mfaCode?: string | (() => string | Promise<string>)}} account
   * @returns {Promise<{token: string, expires_in: number, refresh_token?: string}>}
   * @throws {MfaRequired | import('./errors.js').Unauthorized}
   */
  async login({ email, password, applicationId, mfaCode }) {
    const code = typeof mfaCode === 'string' ? mfaCode : undefined;
    const asked = { email, password, application_id: applicationId, mfa_code: code };
    const signIn = async () => (await this._transport.ask('POST', '/v1/auth/login', asked, { signed: false })).body;
    let grant;
    try {
      grant = await signIn();
    } catch (error) {
      if (!(error instanceof MfaRequired) || typeof mfaCode !== 'function') throw error;
      asked.mfa_code = await mfaCode();
      grant = await signIn();
    }
    this._transport.takeTokens(tokensOf(grant));
    return grant;
  }

  /** Get a new token now. False if the node gives none any more: sign in again. @returns {Promise<boolean>} */
  refresh() {
    return this._transport.refresh();
  }

  /** End the session, on every node. The tokens are forgotten whatever the node says. */
  async logout() {
    try {
      await this._transport.ask('POST', '/v1/auth/logout');
    } finally {
      this._transport.takeTokens(undefined);
    }
  }

  /** @param {{currentPassword: string, newPassword: string}} passwords */
  async changePassword({ currentPassword, newPassword }) {
    const asked = { current_password: currentPassword, new_password: newPassword };
    await this._transport.ask('POST', '/v1/auth/password', asked);
  }

  /** Begin to use a second factor; it counts once `verifyMfa` has had a code of it. @returns {Promise<{secret: string, qr_code: string, recovery_codes?: string[]}>} */
  async enableMfa() {
    return (await this._transport.ask('POST', '/v1/auth/mfa/enable')).body;
  }

  /** @param {string} code */
  async verifyMfa(code) {
    await this._transport.ask('POST', '/v1/auth/mfa/verify', { code });
  }

  /** The own profile. @returns {Promise<Record<string, any>>} */
  async me() {
    return (await this._transport.ask('GET', '/v1/users/me')).body;
  }

  /** @param {Record<string, any>} changes @returns {Promise<Record<string, any>>} */
  async updateMe(changes) {
    return (await this._transport.ask('PUT', '/v1/users/me', changes)).body;
  }

  /** @param {string} key @param {any} value */
  async putUserData(key, value) {
    await this._transport.ask('POST', '/v1/users/me/data', { key, value });
  }

  /** @param {string} key @returns {Promise<any>} */
  async userData(key) {
    return (await this._transport.ask('GET', `/v1/users/me/data/${encodeURIComponent(key)}`)).body.value;
  }

  /** @param {string} action @param {string} resource @returns {Promise<boolean>} */
  async isPermitted(action, resource) {
    const query = { action, resource };
    return (await this._transport.ask('GET', '/v1/users/me/permissions', undefined, { query })).body.permitted;
  }
}
