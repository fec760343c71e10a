# Export conversations for backup
async def export_conversations(user_id: Optional[str] = None) -> Dict:
    query = MemoryQuery(user_id=user_id, limit=None)
    conversations = await provider.find_conversations(query)

    export_data = {
        "export_timestamp": datetime.now().isoformat(),
        "user_id": user_id,
        "conversation_count": len(conversations),
        "conversations": [
            {
                "conversation_id": conv.conversation_id,
                "user_id": conv.user_id,
                "messages": [msg.dict() for msg in conv.messages],
                "metadata": conv.metadata
            }
            for conv in conversations
        ]
    }

    return export_data

# Import from backup
async def import_conversations(export_data: Dict):
    for conv_data in export_data["conversations"]:
        messages = [Message(**msg) for msg in conv_data["messages"]]

        await provider.store_messages(
            conversation_id=conv_data["conversation_id"],
            messages=messages,
            metadata=conv_data["metadata"]
        )
