"""Signatures as OpenSSH makes and checks them: keys, SSHSIG, lists of allowed signers."""
