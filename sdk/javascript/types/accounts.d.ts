/** @typedef {import('./transport.js').Tokens} Tokens */
/** One client's sign-in. A new token is fetched before the old one ends, and when it is refused. */
export class Accounts {
    /** @param {import('./transport.js').Transport} transport */
    constructor(transport: import("./transport.js").Transport);
    _transport: import("./transport.js").Transport;
    /** What requests are made with; keep it to stay signed in across a restart. @returns {Tokens | undefined} */
    get tokens(): Tokens | undefined;
    /** Go on with tokens that were kept. @param {Tokens | undefined} tokens */
    use(tokens: Tokens | undefined): void;
    /** @param {{email: string, password: string, username: string, applicationId?: string}} account @returns {Promise<{user_id: string, message: string}>} */
    register({ email, password, username, applicationId }: {
        email: string;
        password: string;
        username: string;
        applicationId?: string;
    }): Promise<{
        user_id: string;
        message: string;
    }>;
    /**
     * Sign in. `mfaCode` may be a function that asks for a code when one is needed.
     *
     * @param {{email: string, password: string, applicationId?: string, mfaCode?: string | (() => string | Promise<string>)}} account
     * @returns {Promise<{token: string, expires_in: number, refresh_token?: string}>}
     * @throws {MfaRequired | import('./errors.js').Unauthorized}
     */
    login({ email, password, applicationId, mfaCode }: {
        email: string;
        password: string;
        applicationId?: string;
        mfaCode?: string | (() => string | Promise<string>);
    }): Promise<{
        token: string;
        expires_in: number;
        refresh_token?: string;
    }>;
    /** Get a new token now. False if the node gives none any more: sign in again. @returns {Promise<boolean>} */
    refresh(): Promise<boolean>;
    /** End the session, on every node. The tokens are forgotten whatever the node says. */
    logout(): Promise<void>;
    /** @param {{currentPassword: string, newPassword: string}} passwords */
    changePassword({ currentPassword, newPassword }: {
        currentPassword: string;
        newPassword: string;
    }): Promise<void>;
    /** Begin to use a second factor; it counts once `verifyMfa` has had a code of it. @returns {Promise<{secret: string, qr_code: string, recovery_codes?: string[]}>} */
    enableMfa(): Promise<{
        secret: string;
        qr_code: string;
        recovery_codes?: string[];
    }>;
    /** @param {string} code */
    verifyMfa(code: string): Promise<void>;
    /** The own profile. @returns {Promise<Record<string, any>>} */
    me(): Promise<Record<string, any>>;
    /** @param {Record<string, any>} changes @returns {Promise<Record<string, any>>} */
    updateMe(changes: Record<string, any>): Promise<Record<string, any>>;
    /** @param {string} key @param {any} value */
    putUserData(key: string, value: any): Promise<void>;
    /** @param {string} key @returns {Promise<any>} */
    userData(key: string): Promise<any>;
    /** @param {string} action @param {string} resource @returns {Promise<boolean>} */
    isPermitted(action: string, resource: string): Promise<boolean>;
}
export type Tokens = import("./transport.js").Tokens;
