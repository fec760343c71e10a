# GDPR-compliant user data deletion
async def delete_user_data(user_id: str):
    # Get user consent verification
    if not verify_deletion_consent(user_id):
        raise ValueError("User deletion requires verified consent")

    # Delete all user conversations
    deleted_count = await provider.clear_user_conversations(user_id)

    # Log deletion for compliance
    audit_log.info(f"Deleted {deleted_count} conversations for user {user_id}")

    return deleted_count
