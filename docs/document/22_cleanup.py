# Implement conversation cleanup
async def cleanup_old_conversations():
    cutoff_date = datetime.now() - timedelta(days=90)

    # Find old conversations
    query = MemoryQuery(until=cutoff_date, limit=1000)
    old_conversations = await provider.find_conversations(query)

    # Archive or delete
    for conv in old_conversations:
        if should_archive(conv):
            await archive_conversation(conv)
        await provider.delete_conversation(conv.conversation_id)
